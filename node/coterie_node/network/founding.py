"""Files with which sites found their own network: each makes its keys, all exchange cards, each writes the rest.

A card is public. The same cards give the same genesis at every site, so nobody has to be trusted with it. The swarm's
key is the one secret that all sites share; it travels outside of the network.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eth_utils.address import to_checksum_address
from pydantic_core import from_json

from coterie_chain.errors import StoreFault
from coterie_chain.ethereum.network import Network
from coterie_chain.keys.private_files import read_private, replace_private, supply_private, write_private
from coterie_chain.keys.site_keys import SCRYPT, SiteKeys, read_passphrase
from coterie_chain.ledger.protocol import SiteEntry
from coterie_chain.network import genesis
from coterie_chain.network.clique import SLEEPING_PERIOD, check_sleep
from coterie_chain.network.deploy import deploy
from coterie_chain.network.programs import geth, kubo
from coterie_chain.network.programs.besu import Besu
from coterie_chain.network.programs.geth import Geth
from coterie_chain.network.programs.ports import LOOPBACK
from coterie_chain.network.swarm import Kubo
from coterie_chain.store.cid import decode_base58
from coterie_node.data.files.bounded_file import read_bounded
from coterie_node.errors import ConfigError
from coterie_node.network.site_ports import SitePorts
from coterie_node.site.cards import MAX_CARD_BYTES, SeatCard, check_site_name
from coterie_node.site.folder import KEYS, PASSPHRASE
from coterie_node.site.invitation import MAX_INVITATION_BYTES

NODE_SETTINGS = """\
# Settings of one site's node of a trial; `coterie init` writes them for a real one.
site = {site}

[chain]
url = {chain}
confirmations = {confirmations}

[store]
url = {store}

[policy]
learners = ["glore", "cola"]
"""
CHAIN_KINDS = ("clique", "qbft")
DEFAULT_PERIOD = 5
# The folder with the cards of all founders: `coterie doctor` names the peers by them.
FOUNDERS = "founders"
# Besu makes an empty block after so many seconds where the chain sleeps, and deadlines are seen as much later. With
# fewer validators the chain stands still when the one whose turn it is has failed.
EMPTY_PERIOD, SLEEPING_VALIDATORS = 300, 4
ANY = "0.0.0.0"
# The keys of a trial protect nothing.
TRIAL_SCRYPT = 1 << 12
# Fixed addresses of the three-site trial in containers: site number k has 10 k + 1 for its chain node and so on.
TRIAL_NET = "172.28.20"
TRIAL_PARTS = {"geth": 1, "kubo": 2, "node": 3}


@dataclass(frozen=True)
class FounderCard:
    """The card of a site that founders exchange (founder.json): its sealer, its signing account, its addresses.

    `sealer` and `operator` are accounts, `sealing` a public key (hex), `peer` the Kubo's peer id; `enode` and `swarm`
    say where chain node and Kubo are reached. The seat that a later site asks for is a `SeatCard`.
    """

    site: str
    chain: str
    sealer: str
    operator: str
    sealing: str
    enode: str
    peer: str
    swarm: str

    def to_json(self) -> str:
        """Text of a card's file."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def entry(self, number: int) -> SiteEntry:
        """The site's seat in the Catalog."""
        # a peer's id ends in its Ed25519 key
        peer = decode_base58(self.peer)[-32:]
        return SiteEntry(number, self.site, to_checksum_address(self.operator), bytes.fromhex(self.sealing), peer)

    @classmethod
    def read(cls, path: Path) -> FounderCard:
        """A card from its file; ConfigError for another file."""
        try:
            raw = from_json(read_bounded(path, MAX_CARD_BYTES))
            if not all(isinstance(value, str) for value in raw.values()):
                raise TypeError("the values of a card are texts")
            return check_card(cls(**raw))
        except OSError as error:
            raise ConfigError(
                "CO-F501", f"The card {path} cannot be read: {error.strerror}. Check the path and its rights."
            ) from None
        except (ValueError, TypeError, AttributeError) as error:
            message = f"{path} is not a site's card: {error}"
            raise ConfigError("CO-F501", f"{message}. `coterie network keys` writes it, as founder.json.") from None


# What each line of a card looks like. Letters of hexadecimal keys are small, so that equal keys are equal texts.
_FORMS = {
    "sealer": r"0x[0-9a-fA-F]{40}",
    "operator": r"0x[0-9a-fA-F]{40}",
    "sealing": r"[0-9a-f]{64}",
    "enode": r"enode://[0-9a-f]{128}@[\w.:\[\]-]{1,253}:\d{1,5}(\?discport=0)?",
    "peer": r"[1-9A-HJ-NP-Za-km-z]{40,64}",
    "swarm": r"/(ip4|ip6|dns4|dns6)/[\w.:-]{1,253}/tcp/\d{1,5}",
}
# The lines in which no two cards may agree.
_OWN = ("sealer", "operator", "sealing", "enode", "peer")


def check_card(card: FounderCard) -> FounderCard:
    """The card; ConfigError (CO-F325, CO-F501) for a name, a key or an address of another form."""
    check_site_name(card.site)
    for what, form in _FORMS.items():
        if re.fullmatch(form, getattr(card, what), re.ASCII) is None:
            message = f"The card of {card.site} has no {what} of the usual form: {getattr(card, what)[:60]!r}"
            raise ConfigError("CO-F501", f"{message}. Ask the site for its card again.")
    return card


def check_distinct(cards: Iterable[FounderCard]) -> None:
    """ConfigError (CO-F502) if two sites' cards name the same sealer, account, sealing key, chain node or store.

    A site that copies a line of another card would get that site's votes against itself, or its place in the lists of
    peers.
    """
    owners: dict[tuple[str, str], str] = {}
    for card in cards:
        for what in _OWN:
            value = getattr(card, what).lower() if what != "peer" else card.peer
            owner = owners.setdefault((what, value.partition("@")[0]), card.site)
            if owner != card.site:
                message = f"The cards of {owner} and {card.site} have the same {what}"
                raise ConfigError("CO-F502", f"{message}. Each site has its own: ask both for their cards again.")


def build_seat(card: FounderCard) -> SeatCard:
    """The seat that a founder's card asks for."""
    peer = decode_base58(card.peer)[-32:].hex()
    return SeatCard(name=card.site, address=card.operator, sealing=f"0x{card.sealing}", peer=f"0x{peer}")


def make_keys(
    folder: Path, site: str, chain_host: str, swarm_host: str, *, chain: str = "clique", scrypt: int = SCRYPT
) -> FounderCard:
    """Make what a site's folder lacks of keys, for its operator, chain node and Kubo; returns its card.

    The hosts are the addresses at which the other sites reach its chain node and its Kubo.
    """
    own_keys, passphrase_file = folder / KEYS, folder / PASSPHRASE
    check_site_name(site)
    if chain not in CHAIN_KINDS:
        raise ConfigError("CO-F305", f"There is no chain {chain!r} to found. Name one of {', '.join(CHAIN_KINDS)}.")
    if not own_keys.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        supply_private(passphrase_file, lambda: secrets.token_urlsafe(24) + "\n")
        SiteKeys.create(own_keys, read_passphrase(passphrase_file), scrypt=scrypt)
    keys = SiteKeys.load(own_keys, read_passphrase(passphrase_file))
    ports = SitePorts.read(folder)
    sealer, enode = _chain_keys(folder, chain, chain_host, ports.chain)
    store = Kubo(folder / "kubo")
    if not store.identity.exists():
        store.create(kubo.create_swarm_key())
    at = kubo.format_multiaddr(swarm_host, ports.swarm)
    return FounderCard(site, chain, sealer, keys.address, keys.sealing.hex(), enode, store.peer, at)


def write_network_files(
    folder: Path,
    site: str,
    cards: Sequence[FounderCard],
    *,
    period: int | None = None,
    api: str = LOOPBACK,
    of_network: Path | None = None,
    sleep: bool = False,
) -> None:
    """Write a site's genesis and configurations from the cards of all sites; the site's own must be among them.

    `api` is where this site's own programs reach its Kubo. A site that comes later brings the genesis `of_network`,
    which says already whether the chain makes no blocks at rest (`sleep`). `period`: by default 5 s, 1 s with sleep.
    """
    own_card = next((card for card in cards if card.site == site), None)
    if own_card is None or len({card.site for card in cards}) < len(cards) or len({card.chain for card in cards}) > 1:
        names = ", ".join(f"{card.site} ({card.chain})" for card in cards)
        raise ConfigError(
            "CO-F502",
            f"These cards do not found a network: {names}. Give one card of each site, {site}'s too, of one chain.",
        )
    others = [card for card in cards if card.site != site]
    if of_network is not None:
        text = _read_genesis(of_network)
    elif sleep:
        text = _make_sleeping_genesis(folder, cards, period or SLEEPING_PERIOD)
    else:
        text = _make_genesis(cards, period or DEFAULT_PERIOD)
    check_distinct(cards)
    _chain_files(folder, own_card, others, text)
    store = Kubo(folder / "kubo")
    peers = {card.peer: card.swarm for card in others}
    ports = SitePorts.read(folder)
    store.listen(kubo.format_multiaddr(ANY, ports.swarm), kubo.format_multiaddr(api, ports.store), peers)
    keep_cards(folder, cards)


def keep_cards(folder: Path, cards: Sequence[FounderCard]) -> None:
    """Write the cards of all sites into a site's folder, where `coterie doctor` finds them."""
    (folder / FOUNDERS).mkdir(exist_ok=True)
    for card in cards:
        replace_private(folder / FOUNDERS / f"{check_site_name(card.site)}.json", card.to_json())


def deploy_catalog(folder: Path, url: str, cards: Sequence[FounderCard]) -> Network:
    """Deploy the Catalog with all sites' seats through this site's chain node; its operator pays and gets no rights."""
    keys = SiteKeys.load(folder / KEYS, read_passphrase(folder / PASSPHRASE))
    entries = [card.entry(number) for number, card in enumerate(cards, start=1)]
    confirmations = count_confirmations(cards)
    chain_id = find_chain_id(folder, cards[0].chain)
    return deploy(url, entries, keys.signer, confirmations=confirmations, chain_id=chain_id)


def count_confirmations(cards: Sequence[FounderCard]) -> int:
    """After how many blocks more a block of these founders' chain is final."""
    return len(cards) // 2 + 1 if cards[0].chain == "clique" else 0


def make_trial(root: Path, sites: Sequence[str], *, period: int = DEFAULT_PERIOD) -> dict[str, str]:
    """Write all folders of a trial in containers on one machine; returns the variables of its `.env` file."""
    cards: list[FounderCard] = []
    for number, site in enumerate(sites, start=1):
        hosts = (trial_address(number, "geth"), trial_address(number, "kubo"))
        cards.append(make_keys(root / site, site, *hosts, scrypt=TRIAL_SCRYPT))
    shared = read_private(Kubo(root / sites[0] / "kubo").key, "the swarm's key")
    for site in sites:
        Kubo(root / site / "kubo").join(shared)
        write_network_files(root / site, site, cards, period=period, api=ANY)
        _write_trial_node(root / site, site, cards)
    return {f"{card.site.upper()}_SEALER": card.sealer for card in cards}


def _write_trial_node(folder: Path, site: str, cards: Sequence[FounderCard]) -> None:
    """What the site's node finds at /site: its settings and a token for its API."""
    text = NODE_SETTINGS.format(
        site=json.dumps(site),
        chain=json.dumps(f"http://{site}-geth:{geth.RPC_PORT}?jwt_file=/site/geth/jwt.hex"),
        store=json.dumps(f"kubo+http://{site}-kubo:{kubo.API_PORT}?token_file=/site/kubo/token"),
        confirmations=len(cards) // 2 + 1,
    )
    (folder / "node.toml").write_text(text)
    write_private(folder / "api.token", secrets.token_urlsafe(32) + "\n")


def trial_address(number: int, part: str) -> str:
    """Address of a part of the trial's site number 1, 2, 3."""
    return f"{TRIAL_NET}.{10 * number + TRIAL_PARTS[part]}"


def _chain_keys(folder: Path, chain: str, host: str, port: int) -> tuple[str, str]:
    """Address of the site's sealer and enode of its node; the keys are made if they are missing."""
    if chain == "clique":
        node = Geth(folder / "geth")
        if not node.is_made:
            node.create()
        return node.sealer, node.enode(host, port)
    validator = Besu(folder / "besu")
    if not validator.key.exists():
        validator.create()
    return validator.validator, validator.enode(host)


def genesis_file(folder: Path, chain: str) -> Path:
    """The path of a site's genesis."""
    return folder / ("geth" if chain == "clique" else "besu") / "genesis.json"


def _make_genesis(cards: Sequence[FounderCard], period: int) -> str:
    signing, operators = [card.sealer for card in cards], [card.operator for card in cards]
    make = genesis.build_clique_genesis if cards[0].chain == "clique" else genesis.build_qbft_genesis
    return _dump_genesis(make(signing, operators, period=period))


def _make_sleeping_genesis(folder: Path, cards: Sequence[FounderCard], period: int) -> str:
    """The genesis of a chain that sleeps; StoreFault (CO-C338) for a number of sites that is not tested."""
    signing, operators = [card.sealer for card in cards], [card.operator for card in cards]
    if cards[0].chain == "clique":
        check_sleep([Geth(folder.absolute() / "geth").ipc] * len(cards))
        return _dump_genesis(genesis.build_clique_genesis(signing, [*operators, *signing], period=period))
    if len(cards) < SLEEPING_VALIDATORS:
        message = f"A QBFT chain that sleeps needs {SLEEPING_VALIDATORS} validators; there are {len(cards)}"
        raise StoreFault("CO-C338", f"{message}. Leave out --sleep, or found it with more sites.")
    paced = {"period": period, "empty_period": EMPTY_PERIOD}
    return _dump_genesis(genesis.build_qbft_genesis(signing, operators, **paced))


def _dump_genesis(content: Mapping[str, Any]) -> str:
    """A genesis file, the same text for equal contents, whichever way they came: its SHA-256 is compared."""
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _read_genesis(path: Path) -> str:
    try:
        raw = from_json(read_bounded(path, MAX_INVITATION_BYTES))
    except (OSError, ValueError) as error:
        raise ConfigError(
            "CO-F324", f"The genesis file {path} cannot be read: {error}. Ask a member for the file again."
        ) from None
    if isinstance(raw, dict) and isinstance(raw.get("genesis_file"), dict):
        raw = raw["genesis_file"]  # of an invitation: `join` wants a chain node that runs, and that wants the genesis
    if not isinstance(raw, dict) or not {"config", "extraData", "alloc"} <= raw.keys():
        raise ConfigError("CO-F324", f"{path} has no genesis. An invitation made with --genesis does.")
    return _dump_genesis(raw)


def _chain_files(folder: Path, own_card: FounderCard, others: Sequence[FounderCard], text: str) -> None:
    genesis_file(folder, own_card.chain).write_text(text)
    enodes = [card.enode for card in others]
    if own_card.chain == "clique":
        Geth(folder / "geth").listen(ANY, SitePorts.read(folder).chain, enodes)
    else:
        Besu(folder / "besu").listen(own_card.enode.partition("@")[2].rpartition(":")[0], enodes)


def find_chain_id(folder: Path, chain: str) -> int | None:
    """The chain id of the genesis in a site's folder; None without one. ConfigError (CO-F324) for another file."""
    path = genesis_file(folder, chain)
    if not path.exists():
        return None
    try:
        return int(from_json(_read_genesis(path))["config"]["chainId"])
    except (KeyError, TypeError, ValueError):
        raise ConfigError("CO-F324", f"{path} names no chain id. Ask a member for the file again.") from None


def find_period(folder: Path) -> float:
    """Seconds between two blocks, by the genesis in a site's folder; 0 where none is there, or the chain rests."""
    for chain in CHAIN_KINDS:
        with suppress(OSError, ValueError):
            return genesis.read_period(json.loads(genesis_file(folder, chain).read_bytes()))
    return 0.0


@dataclass(frozen=True)
class Addresses:
    """Chain node and store of a site, the blocks until a result is final, and whether the daemon drives the sealer."""

    chain: str
    store: str
    confirmations: int
    sleep: bool


def propose_addresses(folder: Path) -> Addresses:
    """Addresses for node.toml: those of `coterie network keys` and `files` in a site's folder, else the usual ones."""
    node, store, file = Geth(folder / "geth"), Kubo(folder / "kubo"), genesis_file(folder, "clique")
    ports = SitePorts.read(folder)
    chain = f"http://{LOOPBACK}:{ports.rpc}?jwt_file=geth/jwt.hex" if node.jwt.exists() else "http://127.0.0.1:8545"
    store_url = (
        f"kubo+http://{LOOPBACK}:{ports.store}?token_file=kubo/token" if store.token.exists() else "folder:store"
    )
    content = json.loads(file.read_text()) if file.exists() else {}
    signing = genesis.read_sealers(content)
    sleep = genesis.lets_sealers_sleep(content)
    return Addresses(chain, store_url, len(signing) // 2 + 1 if signing else 0, sleep)
