"""Variants of the known attacks, tried against their own defences: names, archives, votes, statements and stores."""

from __future__ import annotations

import hashlib
import json
import stat
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from support.node.houses import NodeNetwork, study_file
from support.node.worlds import World, cohort, sweep

from coterie_chain.errors import PostRejected
from coterie_chain.ledger.memory import MemoryChain
from coterie_chain.ledger.protocol import Ledger, Post, Record, SiteEntry, State, Terms
from coterie_chain.store.cid import RAW, Cid
from coterie_learners.errors import StudyError
from coterie_learners.study.document import Study
from coterie_node.audit.bundle import load_bundle
from coterie_node.audit.replay import replay
from coterie_node.errors import AuditFailed
from coterie_node.run.study_files import load_study, study_terms
from coterie_node.site.decisions import make_decision
from coterie_node.site.statements.ended_studies import find_supersession, list_inspections

DAY = 86_400
SIGNS = ("\u202e", "\u200b", "\u00ad", "\n", "\x1b[2J", "\ufeff", "а")  # the last one is a Cyrillic a


# Names that people read


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("place", ["name", "site", "column", "learner", "patient list"])
def test_a_name_that_reads_like_another_is_no_study(sign: str, place: str, tmp_path: Path) -> None:
    texts = {
        "name": {'name = "cohort"': f"name = {json.dumps('coh' + sign + 'ort')}"},
        "site": {'"west"': json.dumps("we" + sign + "st")},
        "column": {"died ~ age + male": f"died ~ ag{sign}e + male", "[variables.age]": f'[variables."ag{sign}e"]'},
        "learner": {'name = "glore"': f"name = {json.dumps('glo' + sign + 're')}"},
        "patient list": {"[learner]": f"[cohort]\nname = {json.dumps('a' + sign)}\n[learner]"},
    }
    with pytest.raises(StudyError) as caught:
        load_study(study_file(tmp_path, texts=texts[place]))
    assert str(caught.value).isprintable()


# Archives


TEXT = b'{"@graph": []}'
ARCHIVES: dict[str, Callable[[zipfile.ZipFile], None]] = {
    "the same name twice": lambda z: write_each(z, ["bundle.json", "bundle.json"], TEXT),
    "the same name in capitals": lambda z: z.writestr("Bundle.JSON", TEXT),
    "a name from above": lambda z: z.writestr("payloads/../../bundle.json", TEXT),
    "an absolute name": lambda z: z.writestr("/etc/coterie.json", TEXT),
    "a name of the other system": lambda z: z.writestr("payloads\\..\\bundle.json", TEXT),
    "a name that begins with a dot": lambda z: z.writestr("./bundle.json", TEXT),
    "a payload under another spelling of its CID": lambda z: z.writestr(f"payloads/{str(raw_cid(TEXT)).upper()}", TEXT),
    "a name beyond all names": lambda z: z.writestr("payloads/" + "b" * 5000, TEXT),
    "a file that unpacks without end": lambda z: z.writestr("README.md", bytes(1 << 27), zipfile.ZIP_DEFLATED),
    "many files that unpack far": lambda z: write_each(
        z, [f"payloads/{raw_cid(bytes([k]))}" for k in range(200)], bytes(1 << 20)
    ),
    "a link": lambda z: z.writestr(make_link("README.md.link"), "/etc/hostname"),
}


def write_each(archive: zipfile.ZipFile, names: Iterable[str], content: bytes) -> None:
    for name in names:
        archive.writestr(name, content, zipfile.ZIP_DEFLATED)


def raw_cid(data: bytes) -> Cid:
    return Cid(1, RAW, hashlib.sha256(data).digest())


def make_link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_that_is_no_bundle_is_refused_before_anything_is_read_from_it(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "study.zip"
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # zipfile warns of what this test is about
        ARCHIVES[kind](archive)
    with pytest.raises(AuditFailed) as caught:
        load_bundle(path)
    assert caught.value.code == "CO-A201"
    assert sorted(place.name for place in tmp_path.iterdir()) == ["study.zip"]


# Two proposers of one document


def test_of_two_proposals_of_one_document_only_the_one_with_its_own_order_of_sites_runs(
    node_network: NodeNetwork,
) -> None:
    study = load_study(study_file(node_network.root))
    swapped = replace(study_terms(study), sites=("west", "south", "north"))
    west = node_network.chain.ledger(node_network.keys["west"].address)
    first = west.propose(swapped)
    node_network.propose(study_file(node_network.root), "south")
    node_network.approve(study.hash, "north", "west")
    for _ in range(4):
        node_network.settle()
        node_network.seconds += 61
    states = [west.view(number).state for number in (first, first + 1)]
    assert states == [State.PROPOSED, State.COMPLETED]
    assert not any(isinstance(e, Record) for e in west.history(first))
    assert "CO-R401" in node_network.log("north")


def test_an_approval_of_terms_that_were_changed_before_the_joining_joins_nothing(node_network: NodeNetwork) -> None:
    """The proposer withdraws the proposal that people have read, and proposes again with another deadline."""
    study = load_study(study_file(node_network.root))
    node_network.blobs.put(study.document)
    west = node_network.chain.ledger(node_network.keys["west"].address)
    seen = west.view(west.propose(study_terms(study)))
    west.decline([seen.id], 14)
    again = west.propose(replace(study_terms(study), timeout=60))
    for name in ("north", "south"):
        node_network.decisions(name).record(make_decision(study.hash, "approve", view=seen))
    for _ in range(3):
        node_network.settle()
        node_network.seconds += 61
    assert west.view(again).joined == ("west",)
    assert node_network.phases()["north"] == ["aborted", "waiting"]


# Votes and statements


class Seats:
    """Five sites on a memory ledger that ran one study, without nodes."""

    def __init__(self) -> None:
        self.seconds = 1_000_000
        self.keys = {name: "0x" + f"{k:02x}" * 20 for k, name in enumerate(("ana", "bob", "cyd", "dan", "eva"), 1)}
        entries = [SiteEntry(k, n, a, bytes([k]) * 32) for k, (n, a) in enumerate(self.keys.items(), 1)]
        self.chain = MemoryChain(entries, lambda: self.seconds)

    def ledger(self, name: str) -> Ledger:
        return self.chain.ledger(self.keys[name])

    def finish_study(self, *names: str) -> int:
        """A study of one server's post; returns its number."""
        terms = Terms(b"\1" * 32, names, (), ("server",), (), 1, 60)
        number = self.ledger(names[0]).propose(terms)
        for name in names[1:]:
            self.ledger(name).join(number, terms.hash)
        digest = b"\5" * 32
        cid = str(Cid(1, RAW, digest))
        self.ledger(names[0]).record(Post(number, 0, 0, cid, digest, 9, False, terms.hash))
        return number


def test_an_expired_vote_does_not_count_when_the_electorate_has_shrunk_since() -> None:
    seats = Seats()
    fay = SiteEntry(0, "fay", "0x" + "99" * 20, b"\11" * 32)
    for name in ("ana", "bob"):
        seats.ledger(name).admit(fay)
    seats.seconds += 14 * DAY + 1
    for name in ("ana", "bob", "cyd"):
        seats.ledger(name).revoke("eva")
    for name in ("ana", "bob", "cyd"):
        seats.ledger(name).revoke("dan")
    seats.ledger("cyd").admit(fay)  # with the two old votes it would be three of three
    assert "fay" not in {site.name for site in seats.ledger("ana").sites()}
    seats.ledger("ana").admit(fay)
    assert "fay" in {site.name for site in seats.ledger("ana").sites()}


def test_neither_a_stranger_nor_one_of_three_supersedes_a_result() -> None:
    seats = Seats()
    number = seats.finish_study("ana", "bob", "cyd")
    with pytest.raises(PostRejected, match="NotParticipant"):
        seats.ledger("eva").supersede(number, 0, b"\7" * 32)
    seats.ledger("bob").supersede(number, 0, b"\7" * 32)
    assert not seats.ledger("ana").view(number).superseded
    seats.ledger("cyd").supersede(number, 0, b"\6" * 32)  # another reason is another motion
    assert not seats.ledger("ana").view(number).superseded


def test_a_site_attests_for_itself_and_a_verdict_that_nobody_knows_is_no_pass() -> None:
    seats = Seats()
    number = seats.finish_study("ana", "bob", "cyd")
    with pytest.raises(PostRejected, match="NotParticipant"):
        seats.ledger("eva").attest(number, b"\1" * 32, 1)
    seats.ledger("bob").attest(number, b"\1" * 32, 65_535)
    (inspection,) = list_inspections(seats.ledger("ana").history(), number)
    assert (inspection.site, inspection.same_rows) == ("bob", False)
    assert "verdict 65535" in inspection.sentence
    assert "follow from these rows" not in inspection.sentence


@pytest.mark.parametrize("reason", [b"\xe2\x80\xaeevil", b"\xff\xfe", b"\x1b[2J", None, bytes(100_000)])
def test_a_reason_that_is_no_plain_text_spoils_neither_replay_nor_its_words(reason: bytes | None) -> None:
    world: World = cohort(3, aggregation="plain")
    sweep(world.crew().values())
    digest = hashlib.sha256(reason or b"of nobody").digest()
    if reason is not None:
        world.blobs.put(reason)
    world.ledger(world.study.sites[0]).supersede(world.number, 0, digest)
    outcome = replay(world.ledger(), world.blobs, world.number)
    assert outcome.verdict.verdict == "PASS"
    superseded = find_supersession(world.ledger().history(world.number), world.number, world.blobs)
    assert superseded is not None
    assert superseded.sentence in outcome.remarks
    assert superseded.sentence.isprintable()


def test_the_study_of_this_file_is_one_that_is_taken(tmp_path: Path) -> None:
    assert isinstance(load_study(study_file(tmp_path)), Study)
