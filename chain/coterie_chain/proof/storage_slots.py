"""The contracts' state read from their storage, slot by slot, as the compiler lays it out (Catalog.sol, Model.sol)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from eth_abi.abi import encode
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from coterie_chain.errors import LedgerMismatch, PostRejected
from coterie_chain.ethereum.decode import Decoder, decode_name
from coterie_chain.ethereum.views import Status, build_study_view
from coterie_chain.ledger.protocol import Head, SiteEntry, State, StudyView
from coterie_chain.ledger.record_chain import compute_genesis_head
from coterie_chain.ledger.rules import MAX_SITES

COUNTS, MEMBERS, SEATS, STUDIES, SUCCESSOR = 0, 1, 2, 5, 8
SEAT_SLOTS, STUDY_SLOTS = 5, 14
NEXT, HEAD = 0, 1
# The words of a study after its step.
ACTIVE, PLACES, JOINED, POSTED, BASIS, ORIGIN, HASH, SCHEDULE, ORDER = 2, 3, 4, 5, 6, 8, 9, 10, 13
# Fields of a study's step from the lowest byte up, with their bytes.
_STEP = (
    *(("state", 1), ("phase", 1), ("index", 1), ("turn", 1), ("done", 1), ("attempt", 2), ("position", 4)),
    *(("round", 4), ("deadline", 8), ("timeout", 4), ("max_rounds", 2), ("silence", 1), ("least", 1)),
)
_ADDRESS = (1 << 160) - 1


class Storage(Protocol):
    """Words of contracts' storage at one block."""

    def slot(self, address: str, place: int) -> int:
        """One word."""


class ContractStorage:
    """What the Catalog and the Models hold, read from storage; site names come from the seats themselves."""

    def __init__(self, storage: Storage, catalog: str, chain_id: int) -> None:
        self._storage, self._catalog, self._chain_id = storage, catalog.lower(), chain_id
        counts = storage.slot(self._catalog, COUNTS)
        self.site_count, self.study_count = counts & 0xFF, counts >> 8 & (1 << 64) - 1
        if self.site_count > MAX_SITES:
            raise LedgerMismatch(
                "CO-C312",
                f"The Catalog's storage counts {self.site_count} sites; the limit is {MAX_SITES}. "
                "The evidence is false or of another contract. Ask another site for it.",
            )

    def models(self) -> dict[int, str]:
        """Address of each site's Model, in lower-case hex."""
        return {i: f"0x{self._read_seat_word(i, 4) & _ADDRESS:040x}" for i in range(1, self.site_count + 1)}

    def sites(self) -> tuple[SiteEntry, ...]:
        """All seats, by id."""
        members = self._storage.slot(self._catalog, MEMBERS)
        return tuple(self._read_site(i, bool(members >> i & 1)) for i in range(1, self.site_count + 1))

    def heads(self) -> dict[str, Head]:
        """Each site's chain of records."""
        heads = {}
        for site, model in self.models().items():
            following, head = (self._storage.slot(model, place) for place in (NEXT, HEAD))
            first = compute_genesis_head(self._catalog, self._chain_id, site)
            heads[decode_name(_encode_word(self._read_seat_word(site, 0)))] = Head(
                first, following - 1, _encode_word(head)
            )
        return heads

    def read_successor(self) -> str:
        """Address of the Catalog that succeeds this one; empty if none does."""
        word = self._storage.slot(self._catalog, SUCCESSOR) & _ADDRESS
        return to_checksum_address(f"0x{word:040x}") if word else ""

    def position(self, study: int) -> int:
        """The step that a study has come to; PostRejected (BadState) if there is none."""
        return self._read_step(study)["position"]

    def view(self, study: int, decoder: Decoder) -> StudyView:
        """A study's terms and state; PostRejected (BadState) if there is none."""
        step, order = self._read_step(study), self._read_order(study)
        hash_, *schedule = (_encode_word(self._read_study_word(study, HASH + k)) for k in range(4))
        figures = (step["max_rounds"], step["timeout"], step["silence"], step["least"])
        terms = decoder.terms((hash_, order, schedule, *figures))
        return build_study_view(study, tuple(order), terms, self._read_status(study, step, schedule, order), decoder)

    def _read_step(self, study: int) -> dict[str, int]:
        if not 1 <= study <= self.study_count:
            raise PostRejected("BadState", int(State.NONE))
        return _split_step(self._read_study_word(study, 0))

    def _read_status(self, study: int, step: dict[str, int], schedule: list[bytes], order: bytes) -> Status:
        kind = server = 0
        if step["state"] == State.RUNNING:
            kind = schedule[step["phase"]][step["index"]]
            places = self._read_study_word(study, PLACES)
            ahead = places >> step["turn"] << step["turn"] or places
            server = order[(ahead & -ahead).bit_length() - 1]
        origin = self._read_study_word(study, ORIGIN)
        names = ("state", "position", "attempt", "round", "phase", "index", "turn", "deadline")
        return Status(
            **{name: step[name] for name in names},
            done=bool(step["done"]),
            active=self._read_study_word(study, ACTIVE),
            able=self._able(study),
            joined=self._read_study_word(study, JOINED),
            posted=self._read_study_word(study, POSTED) & ~1,
            basis=_encode_word(self._read_study_word(study, BASIS)),
            kind=kind,
            server=server,
            proposer=origin >> 80 & 0xFF,
            superseded=bool(origin >> 88 & 0xFF),
        )

    def _able(self, study: int) -> int:
        """The active participants whose key has not changed since the proposal, as a bitmap."""
        changes = self._read_study_word(study, ORIGIN) & (1 << 64) - 1
        rest = self._read_study_word(study, ACTIVE) & self._storage.slot(self._catalog, MEMBERS)
        return sum(1 << i for i in range(1, self.site_count + 1) if rest >> i & 1 and self._list_changes(i) <= changes)

    def _list_changes(self, site: int) -> int:
        return self._read_seat_word(site, 4) >> 160 & (1 << 64) - 1

    def _read_site(self, site: int, active: bool) -> SiteEntry:
        name, key, sealing, peer = (self._read_seat_word(site, k) for k in range(4))
        address = to_checksum_address(f"0x{key & _ADDRESS:040x}")
        return SiteEntry(
            site, decode_name(_encode_word(name)), address, _encode_word(sealing), _encode_word(peer), active
        )

    def _read_order(self, study: int) -> bytes:
        place = _compute_slot(study, STUDIES) + ORDER
        head = self._storage.slot(self._catalog, place)
        if head & 1 == 0:
            return _encode_word(head)[: (head & 0xFF) // 2]
        size = head // 2
        if size > MAX_SITES:
            raise LedgerMismatch(
                "CO-C312",
                f"The Catalog's storage counts {size} sites in study {study}; the limit is {MAX_SITES}. "
                "The evidence is false or of another contract. Ask another site for it.",
            )
        return b"".join(_encode_word(self._storage.slot(self._catalog, p)) for p in list_order_slots(study, size))[
            :size
        ]

    def _read_seat_word(self, site: int, k: int) -> int:
        return self._storage.slot(self._catalog, _compute_slot(site, SEATS) + k)

    def _read_study_word(self, study: int, k: int) -> int:
        return self._storage.slot(self._catalog, _compute_slot(study, STUDIES) + k)


def list_catalog_slots(sites: int, studies: int) -> Iterator[int]:
    """The Catalog's slots that `ContractStorage` reads, except orders of more than 31 sites."""
    yield from (COUNTS, MEMBERS, SUCCESSOR)
    yield from _list_slots(range(1, sites + 1), SEATS, SEAT_SLOTS)
    yield from _list_slots(range(1, studies + 1), STUDIES, STUDY_SLOTS)


def list_order_slots(study: int, size: int) -> range:
    """Slots of an order of so many sites that does not fit into one word."""
    first = int.from_bytes(keccak((_compute_slot(study, STUDIES) + ORDER).to_bytes(32)))
    return range(first, first + -(-size // 32))


def compute_order_slot(study: int) -> int:
    """The slot that holds the length of a study's order."""
    return _compute_slot(study, STUDIES) + ORDER


def _list_slots(keys: Iterable[int], mapping: int, length: int) -> Iterator[int]:
    for key in keys:
        first = _compute_slot(key, mapping)
        yield from range(first, first + length)


def _compute_slot(key: int, mapping: int) -> int:
    return int.from_bytes(keccak(encode(["uint256", "uint256"], [key, mapping])))


def _split_step(word: int) -> dict[str, int]:
    fields = {}
    for name, size in _STEP:
        fields[name] = word & (1 << 8 * size) - 1
        word >>= 8 * size
    return fields


def _encode_word(value: int) -> bytes:
    return value.to_bytes(32)
