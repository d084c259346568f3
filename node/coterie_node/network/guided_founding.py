"""The founding of a network in two steps for each site.

    1. every site     makes its keys and its card, a short text that is public, and sends it to the first founder
    2. the first one  takes all cards, and writes founding.json: the cards, and the swarm's key sealed to each site
       the others     take founding.json, and open the swarm's key with the key of their own card
    Each then writes its files, starts chain node and store, and waits; the first one deploys the Catalog once a
    majority of the sealers meets, and the others find it on the chain and compare it with the cards.

Invariant: founding.json holds no secret that its reader's own key does not open. Its fingerprint is compared by
telephone, because who changes it on its way puts own keys among the founders'.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Annotated, Literal, TypeVar

from eth_utils.address import to_checksum_address
from pydantic import Field

from coterie_chain.errors import ChainError, LedgerUnreachable
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ethereum.network import Network, NoCatalog, check_nothing_waits, discover
from coterie_chain.ethereum.rpc import Rpc
from coterie_chain.keys.private_files import read_private, replace_private
from coterie_chain.keys.site_keys import SiteKeys, read_passphrase
from coterie_chain.network.programs.kubo import is_swarm_key
from coterie_chain.network.swarm import Kubo
from coterie_learners.study.document import Frozen
from coterie_node.data.files.bounded_file import read_bounded_text
from coterie_node.errors import ConfigError
from coterie_node.network.founding import (
    FounderCard,
    check_card,
    count_confirmations,
    deploy_catalog,
    write_network_files,
)
from coterie_node.site.cards import MAX_CARD_BYTES, check_site_name
from coterie_node.site.folder import KEYS, NETWORK, PASSPHRASE, find_node
from coterie_node.site.strict_file import read_strict

FOUNDING, OWN_CARD = "founding.json", "founder.json"
CARD_PREFIX = "coterie-card-1:"
MAX_FOUNDING_BYTES = 1 << 20
PAUSE_SECONDS = 2.0
GREETING_JOIN_SECONDS = 5.0
_CONTEXT = b"coterie/1 swarm key"
# The chain node does not answer yet, or has no block yet.
_NOT_YET = frozenset({"CO-C301", "CO-C302"})
# What these say to a person who founds or enters a network, where they are in order for some time.
_PLAIN_CAUSES = {
    "CO-C301": "this site's chain node does not answer yet; if this stays, its log says why (geth/log)",
    "CO-C316": "the first founder has not deployed the Catalog yet",
}
T = TypeVar("T")
CardText = Annotated[str, Field(max_length=2000, pattern=r"^[\x20-\x7e]*$")]


class FoundedCard(Frozen):
    """A founder's card as founding.json has it."""

    site: CardText
    chain: CardText
    sealer: CardText
    operator: CardText
    sealing: CardText
    enode: CardText
    peer: CardText
    swarm: CardText

    def card(self) -> FounderCard:
        """The card; ConfigError (CO-F325, CO-F501) if a line of it has another form."""
        return check_card(self.raw_card)

    @property
    def raw_card(self) -> FounderCard:
        """The card as it stands in the file, whatever its lines are."""
        return FounderCard(**self.model_dump())


class FoundingPlan(Frozen):
    """What all founders must have in common, and the swarm's key sealed to each of them."""

    format: Literal[1] = 1
    cards: Annotated[tuple[FoundedCard, ...], Field(min_length=1, max_length=253)]
    sleep: bool = False
    swarm_key: Annotated[str, Field(pattern="^[0-9a-f]*$", max_length=1 << 18)]

    @property
    def fingerprint(self) -> str:
        """Sixteen groups of four letters over all of it, to be read aloud."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return " ".join(digest[at : at + 4] for at in range(0, 64, 4))

    @classmethod
    def load(cls, path: Path) -> FoundingPlan:
        """Read founding.json; ConfigError (CO-F507) for another file."""
        return read_strict(path, cls, MAX_FOUNDING_BYTES, "CO-F507", "a founding.json", " The first founder writes it.")


def format_card(card: FounderCard) -> str:
    """A card as one line of text, for a message or a form."""
    packed = zlib.compress(json.dumps(asdict(card), sort_keys=True).encode(), 9)
    return CARD_PREFIX + base64.urlsafe_b64encode(packed).decode()


def parse_card(text: str) -> FounderCard:
    """The card in a line of text, or in the file that the text names; ConfigError (CO-F501) for anything else."""
    if not text.startswith(CARD_PREFIX):
        saved = _read_saved_text(Path(text))
        return FounderCard.read(Path(text)) if saved is None else parse_card(saved)
    try:
        inflater = zlib.decompressobj()
        raw = inflater.decompress(base64.urlsafe_b64decode(text.removeprefix(CARD_PREFIX)), MAX_CARD_BYTES)
        return FoundedCard.model_validate_json(raw).card()
    except (ValueError, zlib.error):
        message = "This text is no site's card: it is not whole, or it was changed"
        raise ConfigError("CO-F501", f"{message}. Ask the site for it again: coterie site found prints it.") from None


def _read_saved_text(path: Path) -> str | None:
    """The line of text in a file to which somebody saved a printed card; None for any other file."""
    try:
        text = read_bounded_text(path, MAX_CARD_BYTES).strip()
    except (OSError, ValueError):  # FounderCard.read says what is wrong with it
        return None
    return text if text.startswith(CARD_PREFIX) else None


def write_plan(folder: Path, cards: Sequence[FounderCard], *, sleep: bool) -> FoundingPlan:
    """Write the first founder's files and founding.json, with the swarm's key sealed to every site of the cards.

    A founding.json of the same cards stays as it is: the other sites have it, and its fingerprint was read to them.
    """
    own = _own_card(folder).site
    write_network_files(folder, own, cards, sleep=sleep)
    secret = read_private(Kubo(folder / "kubo").key, "the swarm's key").encode()
    written = _read_written_plan(folder, cards, sleep=sleep)
    if written and _load_keys(folder).unseal(bytes.fromhex(written.swarm_key), own, _CONTEXT) == secret:
        return written
    readers = {check_site_name(card.site): bytes.fromhex(card.sealing) for card in cards}
    sealed = _load_keys(folder).seal(secret, readers, _CONTEXT)
    founded = tuple(FoundedCard(**asdict(card)) for card in cards)
    plan = FoundingPlan(cards=founded, sleep=sleep, swarm_key=sealed.hex())
    replace_private(folder / FOUNDING, plan.model_dump_json(indent=2) + "\n")
    return plan


def _read_written_plan(folder: Path, cards: Sequence[FounderCard], *, sleep: bool) -> FoundingPlan | None:
    """The plan that an earlier command wrote of the same cards; None if there is none, or one of other cards."""
    try:
        plan = FoundingPlan.load(folder / FOUNDING)
    except ConfigError:  # there is none, or a damaged one, which is written again
        return None
    same = [founded.raw_card for founded in plan.cards] == list(cards) and plan.sleep == sleep
    return plan if same else None


def follow_plan(folder: Path, plan: FoundingPlan) -> None:
    """Write another founder's files; ConfigError (CO-F502, CO-F507) where this site's card or the key does not fit."""
    own = _own_card(folder)
    listed = next((founded.raw_card for founded in plan.cards if founded.site == own.site), None)
    if listed != own:
        what = "has no card of this site" if listed is None else "has another card of this site than founder.json"
        raise ConfigError("CO-F502", f"founding.json {what} ({own.site}). Send your card to the first founder again.")
    cards = [founded.card() for founded in plan.cards]
    secret = _load_keys(folder).unseal(bytes.fromhex(plan.swarm_key), own.site, _CONTEXT)
    text = b"" if secret is None else secret
    if not is_swarm_key(text.decode("ascii", "replace")):
        message = "founding.json holds no swarm's key for this site"
        raise ConfigError("CO-F507", f"{message}. Ask the first founder for it again.")
    Kubo(folder / "kubo").join(text.decode())
    write_network_files(folder, own.site, cards, sleep=plan.sleep)


def await_network(
    folder: Path,
    plan: FoundingPlan,
    *,
    deploys: bool,
    seconds: float,
    tell: Callable[[str], None] = lambda _: None,
    check: Callable[[], None] = lambda: None,
) -> Network:
    """Find the Catalog of these founders, or deploy it, and write network.json.

    The site with `deploys` waits for the first block, which needs a majority of the sealers, and deploys once: a
    command that is repeated finds what the first one deployed. ConfigError (CO-F508) if the Catalog on the chain has
    other founders than the cards; the chain node's last fault where `seconds` are over.
    """
    url, cards = find_node(folder).chain, [founded.card() for founded in plan.cards]
    with greet_meanwhile(folder):
        if deploys:
            await_chain(lambda: _check_first_block(url), seconds, tell, check)
            own = _own_card(folder).operator
            found = await_chain(lambda: _find_catalog_if_any(url, cards, own), seconds, tell, check)
            network = found or deploy_catalog(folder, url, cards)
        else:
            network = await_chain(lambda: _find_catalog(url, cards), seconds, tell, check)
    replace_private(folder / NETWORK, network.to_json())
    return network


@contextmanager
def greet_meanwhile(folder: Path) -> Iterator[None]:
    """Let this site's chain node greet its peers again where no block comes, as the daemon does once there is one.

    Two sealers that have each sealed the first block alone would wait for each other for ever.
    """
    from coterie_chain.network.greeting import StallWatch
    from coterie_chain.network.programs.geth import read_static_nodes
    from coterie_chain.network.sealer_driver import open_socket

    ipc, stop = find_node(folder).ipc, Flag()
    watch = StallWatch(open_socket(ipc), peers=read_static_nodes(ipc.parent / "config.toml"))
    thread = Thread(target=watch.run, args=(stop,), name="greeting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(GREETING_JOIN_SECONDS)


def await_chain(
    look: Callable[[], T], seconds: float, tell: Callable[[str], None], check: Callable[[], None] = lambda: None
) -> T:
    """What a look at the chain finds, once it finds it; `tell` gets each new reason to wait.

    `check` raises where nothing is left to wait for. The chain node's last fault where `seconds` are over.
    """
    deadline, last = time.monotonic() + seconds, ""
    while True:
        try:
            return look()
        except ChainError as error:
            passes = error.code in _NOT_YET or isinstance(error, NoCatalog)
            if not passes or time.monotonic() > deadline:
                raise
            cause = _PLAIN_CAUSES.get(error.code, error.message)
            if cause != last:
                tell(f"waiting: {cause}")
            last = cause
            time.sleep(PAUSE_SECONDS)
            check()


def _check_first_block(url: str) -> None:
    with Rpc(url) as rpc:
        if rpc.call_quantity("eth_blockNumber") == 0:
            message = "There is no block yet: more than half of the sealers must run and reach each other"
            raise LedgerUnreachable("CO-C302", f"{message}. Start the other sites.")


def _find_catalog_if_any(url: str, cards: Sequence[FounderCard], operator: str) -> Network | None:
    """What an earlier command deployed with this operator's account; None if there is nothing."""
    try:
        return _find_catalog(url, cards)
    except NoCatalog:
        # That command may have given up before a block took its deployment: another one would make a second Catalog.
        check_nothing_waits(url, operator)
    return None


def _find_catalog(url: str, cards: Sequence[FounderCard]) -> Network:
    confirmations = count_confirmations(cards)
    founders = tuple((card.site, to_checksum_address(card.operator)) for card in cards)
    network = replace(discover(url, confirmations=confirmations), founders=founders)
    with EthereumLedger(network, None, confirmations=confirmations) as ledger:
        there = {(s.name, s.address.lower(), s.sealing.hex()) for s in ledger.sites()}
    wanted = {(card.site, card.operator.lower(), card.sealing) for card in cards}
    if not wanted <= there:
        names = ", ".join(sorted(name for name, *_ in wanted - there))
        message = f"The Catalog {network.catalog} on the chain has other keys than the cards of {names}"
        raise ConfigError("CO-F508", f"{message}. Do not use it; ask the first founder.")
    return network


def _own_card(folder: Path) -> FounderCard:
    return FounderCard.read(folder / OWN_CARD)


def _load_keys(folder: Path) -> SiteKeys:
    return SiteKeys.load(folder / KEYS, read_passphrase(folder / PASSPHRASE))
