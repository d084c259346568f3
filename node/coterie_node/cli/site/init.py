"""`coterie init`: the folder of a site's node, with its settings, its keys and its card for the others."""

from __future__ import annotations

import json
import os
import secrets
import sys
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from coterie_chain.keys.private_files import supply_private
from coterie_chain.keys.site_keys import SCRYPT, SiteKeys, read_passphrase
from coterie_chain.network.swarm import Kubo
from coterie_chain.store.cid import decode_base58
from coterie_node.errors import ConfigError
from coterie_node.network.founding import Addresses, propose_addresses
from coterie_node.site.cards import SeatCard, check_site_name
from coterie_node.site.config import CONFIG
from coterie_node.site.folder import KEYS, PASSPHRASE, find_node

TEMPLATE = """\
# Settings of one site's Coterie node. No secret belongs in here. Paths are relative to this folder.
site = {site}

# This site's rows: CSV, Parquet, or a mapping (.toml).
# A study may be approved on another file: coterie study approve --data FILE.
data = {data}

# Patients who object: a file with one identifier on each line; their rows are left out of every study.
exclude = ""

# The first line of this file opens the keys in keys/. Only this user may read it (mode 600).
passphrase_file = {passphrase}

[chain]
# This site's own chain node, on this machine.
url = {chain}
# Blocks after which a result is final: 0 on Besu QBFT, floor(N/2)+1 on Clique with N sealers.
confirmations = {confirmations}
# "auto" sends a record for the same block as the server's if blocks take time; "off" waits for each block.
overlap = "auto"
# true on a Clique chain of three sealers that sleeps: this daemon starts and stops this site's sealer through the
# socket of Geth's administrator. All sites must say the same. See docs/network.md.
sleep = {sleep}
ipc = "geth/geth.ipc"

[store]
# This site's own store: kubo+http://127.0.0.1:5001?token_file=kubo/token, or folder:PATH (a folder that all sites see).
url = {store}

[policy]
# Learners and columns that this site takes part with; without `columns` all columns except those of `never`.
learners = [{learners}]
# columns = ["age", "sex"]
never = []
# Ask a person before each payload leaves (coterie release approve).
ask = false
# The number of different persons of the register who must sign before this node joins a study (coterie person add).
approvals = 0

[policy.floors]
# Floors of this site; the stricter of these and the study's counts. See docs/disclosure.md.
rows = 5
cell = 5
rebuild = "refuse"

[persons]
# true: the texts that persons sign go to the other sites and into bundles; false: the ledger has only their digest.
publish = false

[api]
# /health is open; /metrics and /status need the token in this file. Keep the host on loopback.
host = "127.0.0.1"
port = {port}
token_file = "api.token"

# The page of this node (coterie web; the daemon starts it). `hosts`: its names besides loopback; `proxies`: addresses
# of the reverse proxies that end TLS for it.
# [web]
# port = 9480
# hosts = ["coterie.hospital.example"]
# proxies = ["127.0.0.1"]

# Notices of what this site's people must see; docs/notices.md has every key. Try them: coterie notices test.
# [notices]
# quiet = "22:00-07:00"
# [notices.mail]
# host = "mail.hospital.example"
# sender = "coterie@hospital.example"
# to = ["data-manager@hospital.example"]
# credentials_file = "mail.secret"

# Interactive steps (Secure Lasso, Secure GLM, opening = "bits"): addresses of this node and of its peers, over TLS.
# [talk]
# listen = "127.0.0.1:7401"
# peers = {{ registry = "10.0.0.6:7401", helper = "10.0.0.7:7401" }}

# `coterie prune` refuses to delete a study's payloads for so many years after its end.
# [retention]
# years = 10
"""


def init_command(
    folder: Annotated[Path, typer.Argument(help="New folder of the node.")],
    site: Annotated[str | None, typer.Option(help="Name of this site: a-z, 0-9 and -.")] = None,
    data: Annotated[str | None, typer.Option(help="This site's rows, in the node's folder unless absolute.")] = None,
    chain: Annotated[str | None, typer.Option(help="URL of this site's chain node.")] = None,
    store: Annotated[str | None, typer.Option(help="This site's store.")] = None,
    confirmations: Annotated[
        int | None,
        typer.Option(min=0, max=1000, help="Blocks until a result is final; 0, or what the folder's Geth needs."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of health and metrics.")] = 9464,
    passphrase_file: Annotated[Path | None, typer.Option(help="Your own passphrase file (mode 600).")] = None,
    light: Annotated[bool, typer.Option(hidden=True, help="Weak key derivation, for tests.")] = False,
) -> None:
    """Make a site's node: settings, encrypted keys, and a card to send to the network's founders.

    Asks for each option that is left out, and proposes the Geth and the Kubo that `coterie network` made in the
    folder. Without --passphrase-file a strong passphrase is drawn and written to a file of mode 600. Keys that exist
    stay.
    """
    site = check_site_name(site or _ask("Name of this site", "north"))
    data = data or _ask("File of this site's rows", "data.csv")
    own = propose_addresses(folder)
    addresses = replace(
        own,
        chain=chain or _ask("URL of this site's chain node", own.chain),
        store=store or _ask("This site's store", own.store),
        confirmations=own.confirmations if confirmations is None else confirmations,
    )
    keys = make_node(folder, site, data, addresses, port, passphrase_file, scrypt=1 << 12 if light else SCRYPT)
    print(f"{folder} is the folder of {site}'s node; its signing address is {keys.address}.")
    print(f"Send {folder / 'card.json'} to a founder (nothing in it is secret), then: coterie join INVITE.")
    print(f"Keep a copy of {folder / KEYS} and of the passphrase, apart from each other.")


def make_node(
    folder: Path,
    site: str,
    data: str,
    addresses: Addresses,
    port: int,
    passphrase_file: Path | None = None,
    *,
    scrypt: int = SCRYPT,
) -> SiteKeys:
    """Make what a node's folder lacks: settings, a token for its API, keys, and its card; returns the keys."""
    _make_folder(folder)
    passphrase = _passphrase(folder, passphrase_file)
    settings = TEMPLATE.format(
        site=_quote_toml(site),
        data=_quote_toml(data),
        chain=_quote_toml(addresses.chain),
        store=_quote_toml(addresses.store),
        passphrase=_quote_toml(str(passphrase_file.absolute()) if passphrase_file else "passphrase"),
        confirmations=addresses.confirmations,
        sleep=str(addresses.sleep).lower(),
        port=port,
        learners=", ".join(_quote_toml(name) for name in _learners()),
    )
    if not (folder / KEYS).is_dir():
        SiteKeys.create(folder / KEYS, passphrase, scrypt=scrypt)
    keys = SiteKeys.load(folder / KEYS, passphrase)
    supply_private(folder / "api.token", lambda: secrets.token_urlsafe(32) + "\n")
    store = Kubo(folder / "kubo")
    peer = {"peer": "0x" + decode_base58(store.peer)[-32:].hex()} if store.identity.exists() else {}
    card = SeatCard(name=site, address=keys.address, sealing="0x" + keys.sealing.hex(), **peer)
    (folder / "card.json").write_text(card.model_dump_json(indent=2) + "\n")
    # Last: a folder with settings is whole, and one without is gone on with.
    supply_private(folder / CONFIG, lambda: settings)
    find_node(folder)
    return keys


def locate_typed_rows(folder: Path, data: str) -> str:
    """`data` for node.toml: the whole path where the working folder has this file and the site's folder does not."""
    path = Path(data)
    return str(path.absolute()) if path.is_file() and not (folder / path).exists() else data


def _learners() -> list[str]:
    return sorted({point.name for point in entry_points(group="coterie.learners")})


def _ask(what: str, default: str) -> str:
    if not sys.stdin.isatty():
        return default
    return str(typer.prompt(what, default=default))


def _make_folder(folder: Path) -> None:
    begun = (folder / KEYS).is_dir() or (folder / PASSPHRASE).exists()
    goes_on = begun and not (folder / CONFIG).exists()
    if folder.exists() and not goes_on and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            "CO-F203", f"{folder} is not an empty folder, and a node never replaces another. Name an empty folder."
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(folder, 0o700)


def _passphrase(folder: Path, own_file: Path | None) -> str:
    if own_file is not None:
        return read_passphrase(own_file)
    file = folder / PASSPHRASE
    if not (folder / KEYS).is_dir():
        supply_private(file, lambda: secrets.token_urlsafe(32) + "\n")
    return read_passphrase(file)


def _quote_toml(text: str) -> str:
    """A TOML string; JSON's escapes are TOML's for everything but DEL."""
    return json.dumps(text, ensure_ascii=True).replace("\x7f", "\\u007f")
