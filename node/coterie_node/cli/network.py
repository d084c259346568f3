"""`coterie network`: the files with which sites found a chain and a swarm of their own, with Geth or Besu, and Kubo."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from coterie_chain.errors import KeyFault
from coterie_chain.keys.private_files import read_private, replace_private, write_private
from coterie_chain.network.programs.kubo import fingerprint_swarm_key, is_swarm_key
from coterie_chain.network.programs.ports import LOOPBACK
from coterie_chain.network.swarm import Kubo
from coterie_node.errors import ConfigError
from coterie_node.network.founding import (
    CHAIN_KINDS,
    DEFAULT_PERIOD,
    FounderCard,
    deploy_catalog,
    genesis_file,
    make_keys,
    make_trial,
    write_network_files,
)
from coterie_node.network.systemd_units import UNITS

network = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Found a network: keys, genesis and configurations for all programs.",
)

_Folder = Annotated[Path, typer.Argument(help="The site's folder.")]
_SiteOption = Annotated[str, typer.Option(help="Name of this site.")]
_Period = Annotated[int, typer.Option(min=1, help="Seconds between blocks.")]


@network.command("keys")
def keys_command(
    folder: _Folder,
    site: _SiteOption,
    host: Annotated[str, typer.Option(help="IP address of this site for the other sites.")],
    chain: Annotated[str, typer.Option(help=f"Kind of chain: {' or '.join(CHAIN_KINDS)} (Besu).")] = "clique",
) -> None:
    """Make this site's keys and print its card, which is public, for the others."""
    file = folder / "founder.json"
    if file.exists() and (existing := FounderCard.read(file)).site != site:
        raise ConfigError(
            "CO-F203", f"{folder} has the keys of {existing.site}, not of {site}. Give {site} its own folder."
        )
    card = make_keys(folder, site, host, host, chain=chain).to_json()
    replace_private(file, card)
    print(card, end="")


@network.command("files")
def files_command(
    folder: _Folder,
    site: _SiteOption,
    founder: Annotated[list[Path], typer.Option(help="A site's founder.json; once for each site, this one too.")],
    swarm_key: Annotated[Path | None, typer.Option(help="The swarm's key, if another site made it.")] = None,
    period: Annotated[
        int | None, typer.Option(min=1, help=f"Seconds between blocks ({DEFAULT_PERIOD}, with --sleep 1).")
    ] = None,
    sleep: Annotated[bool, typer.Option("--sleep", help="No blocks at rest: 3 sites on Geth, 4 on Besu.")] = False,
    genesis: Annotated[
        Path | None, typer.Option(help="Genesis or invitation of a network that exists already.")
    ] = None,
    api: Annotated[
        str, typer.Option(help="Address at which this site's programs reach Kubo; 0.0.0.0 in containers.")
    ] = LOOPBACK,
) -> None:
    """Write genesis and configurations from the cards of all sites; the same cards give the same genesis."""
    if swarm_key is not None:
        Kubo(folder / "kubo").join(_swarm_key(swarm_key))
    cards = [FounderCard.read(path) for path in founder]
    write_network_files(folder, site, cards, period=period, api=api, of_network=genesis, sleep=sleep)
    text = genesis_file(folder, cards[0].chain).read_bytes()
    print(f"Written to {folder}. The genesis has SHA-256 {hashlib.sha256(text).hexdigest()} at every site.")
    key = folder / "kubo" / "repo" / "swarm.key"
    fingerprint = fingerprint_swarm_key(read_private(key, "the swarm's key"))
    print(f"All sites need the same {key} (fingerprint {fingerprint}): if this site made it, hand it over in person.")


def _swarm_key(path: Path) -> str:
    text = read_private(path, "the swarm's key")
    if not is_swarm_key(text):
        message = (
            f"{path} is not a swarm's key: it has the lines /key/swarm/psk/1.0.0/, /base16/ and 64 hexadecimal digits"
        )
        raise KeyFault("CO-C104", f"{message}. Ask the site that made it for the file again.")
    return text


@network.command("unit")
def unit_command(
    folder: _Folder, part: Annotated[str, typer.Argument(help=f"Which program: {' or '.join(UNITS)}.")]
) -> None:
    """Print a systemd unit for this site's Geth or Kubo, with what to do before the first start."""
    if part not in UNITS:
        raise ConfigError("CO-F305", f"There is no unit for {part!r}. Name one of {', '.join(UNITS)}.")
    print(UNITS[part](folder), end="")


@network.command("deploy")
def deploy_command(
    folder: _Folder,
    chain: Annotated[str, typer.Option(help="Address of this site's chain node; ?jwt_file=PATH names its token file.")],
    founder: Annotated[list[Path], typer.Option(help="A site's founder.json; once for each site, this one too.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write instead of network.json, for a Catalog that succeeds this one.")
    ] = None,
) -> None:
    """Deploy the Catalog once for all, and write network.json; `coterie invite` makes invitations of it."""
    file = folder / "network.json" if out is None else out
    if file.exists():
        message = f"{file} names a network already, and a second Catalog would be another network"
        cure = "For new contracts with the same members, write another file with --out, and vote: coterie site succeed"
        raise ConfigError("CO-F203", f"{message}. {cure}.")
    text = deploy_catalog(folder, chain, [FounderCard.read(path) for path in founder]).to_json()
    replace_private(file, text)
    print(text, end="")


@network.command("trial")
def trial_command(
    folder: Annotated[Path, typer.Argument(help="New folder of the trial.")] = Path("docker/trial"),
    period: _Period = DEFAULT_PERIOD,
) -> None:
    """Write the folders of three sites for `docker/compose.trial.yaml`."""
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            "CO-F203", f"{folder} is not an empty folder, and a trial never replaces another. Name an empty folder."
        )
    variables = make_trial(folder, ("north", "south", "west"), period=period)
    write_private(folder / ".env", "".join(f"{name}={value}\n" for name, value in variables.items()))
    print(f"Written to {folder}. Next: docker compose --env-file {folder}/.env -f docker/compose.trial.yaml up")
