"""What each party of a fit on shares gets: uniform bytes, alike for data that differ in one patient, and the result."""

from __future__ import annotations

import itertools
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import FrameType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from support.lanes import one_of_each
from support.learners.glm_rows import GlmRows, draw_rows, fit_on_shares
from support.learners.parties import NAMES, RecordedWire

from coterie_learners.errors import NotConverged, ProtocolError
from coterie_learners.numeric.array import Array
from coterie_learners.secure_glm.shared_newton import FIELD_BITS
from coterie_learners.shares.comparison import Q
from coterie_learners.shares.field import Elements
from coterie_learners.shares.shamir3 import ThreePartyShamir

# A test of uniformity that fails by chance once in a million runs; streams are seeded, so that it does so never.
LEAST = 1e-6
CHANNELS = [(a, b) for a in NAMES for b in NAMES if a != b]


@dataclass
class Transcript:
    """What went between the parties of one fit, and what they opened: bits and results apart from masked numbers."""

    wire: RecordedWire = field(default_factory=RecordedWire)
    elements: set[bytes] = field(default_factory=set)
    opened: dict[str, list[Elements]] = field(default_factory=lambda: defaultdict(list))
    masked: dict[str, list[Elements]] = field(default_factory=lambda: defaultdict(list))

    def make_party(self, *args: Any) -> ThreePartyShamir:
        """A party's end that keeps what it sends as elements, and what it opens."""
        transcript = self

        class Watched(ThreePartyShamir):
            def send(self, party: int, limbs: Array) -> None:
                transcript.elements.add(self.limbs.write(limbs))
                super().send(party, limbs)

            def open_limbs(self, shares: Array, *, exact: bool = False) -> Array:
                values = super().open_limbs(shares, exact=exact)
                elements = self.field.from_limbs(values, (values.shape[1],))
                (transcript.opened if exact else transcript.masked)[self.session.me].append(elements)
                return values

        return Watched(*args)

    def between(self, sender: str, receiver: str) -> list[bytes]:
        return [data for a, b, data in self.wire.log if (a, b) == (sender, receiver)]

    def read(self, sender: str, receiver: str, kind: str) -> NDArray[np.uint8]:
        """All bytes of a channel's messages of field elements, or of digits modulo 251."""
        messages = [m for m in self.between(sender, receiver) if (m in self.elements) == (kind == "elements")]
        return np.frombuffer(b"".join(messages), np.uint8)

    @property
    def shape(self) -> Mapping[tuple[str, str], list[int]]:
        """The lengths of each channel's messages, in their order."""
        return {channel: [len(m) for m in self.between(*channel)] for channel in CHANNELS}


def record(rows: GlmRows, seed: int) -> Transcript:
    transcript = Transcript()
    fit_on_shares(rows, transcript.wire, seed, make=transcript.make_party, check_every=4)
    return transcript


def differ_in_one_patient() -> tuple[GlmRows, GlmRows]:
    """Data that differ in one patient: its outcome, and all of its columns at the ends of their ranges."""
    rows = draw_rows(160, 2, seed=21)
    x, y = rows.x.copy(), rows.y.copy()
    x[0], y[0] = 1.0, 1.0 - y[0]
    return rows, GlmRows(x, y)


@cache
def pair() -> tuple[Transcript, Transcript]:
    """The fits of both."""
    rows, other = differ_in_one_patient()
    return record(rows, 1), record(other, 2)


def p_value(counts: NDArray[np.int64]) -> float:
    return float(stats.chisquare(counts).pvalue)


# In `make test` each party receives once.
@pytest.mark.parametrize(
    ("channel", "which"), one_of_each([(c, k) for c in CHANNELS for k in (0, 1)], lambda case: case[0][1])
)
def test_every_byte_that_a_party_gets_is_uniform(channel: tuple[str, str], which: int) -> None:
    transcript = pair()[which]
    elements, digits = transcript.read(*channel, "elements"), transcript.read(*channel, "digits")
    assert len(elements) > 100_000
    assert p_value(np.bincount(elements, minlength=256)) > LEAST
    if len(digits):
        assert digits.max() < Q
        assert p_value(np.bincount(digits, minlength=Q)) > LEAST
    places = elements.reshape(-1, FIELD_BITS // 8)
    assert min(p_value(np.bincount(column >> 4, minlength=16)) for column in places.T) > LEAST


@pytest.mark.parametrize("channel", CHANNELS, ids="-".join)
def test_one_patient_changes_no_length_no_order_and_no_frequency(channel: tuple[str, str]) -> None:
    one, other = pair()
    assert one.shape[channel] == other.shape[channel]
    for kind, classes in (("elements", 256), ("digits", Q)):
        table = [np.bincount(t.read(*channel, kind), minlength=classes) for t in (one, other)]
        if table[0].sum():
            assert float(stats.chi2_contingency(np.array(table)).pvalue) > LEAST
    streams = [t.read(*channel, "elements").astype(float) for t in (one, other)]
    assert abs(float(np.corrcoef(streams)[0, 1])) < 5.0 / np.sqrt(len(streams[0]))
    assert float(stats.ks_2samp(streams[0][::20], streams[1][::20]).pvalue) > LEAST


@pytest.mark.parametrize("name", NAMES)
def test_what_is_opened_is_bits_and_the_result_and_all_else_is_masked(name: str) -> None:
    one, other = pair()
    # Independent columns, settled after four evaluations, the last inverse; coefficients, variances, half the deviance.
    assert [v.size for v in one.opened[name]] == [1, 1, 1, 3, 3, 1]
    assert [[int(v[0]) for v in t.opened[name][:3]] for t in (one, other)] == [[1, 1, 1]] * 2
    for transcript in (one, other):
        low = np.array([int(v) & 0xFFF for part in transcript.masked[name] for v in part.ravel().tolist()])
        assert len(low) > 10_000
        assert p_value(np.bincount(low >> 4, minlength=256)) > LEAST


# Timing classes: what a party does between two messages may not depend on any value, or its pauses would.


class Work:
    """Calls of the learners' functions between the messages of one party: work that no clock and no load disturbs."""

    def __init__(self) -> None:
        self.steps: dict[str, list[int]] = defaultdict(lambda: [0])

    def make_party(self, *args: Any) -> ThreePartyShamir:
        """A party's end whose thread counts; its steps end with each message that it sends or gets."""
        steps = self.steps

        class Counted(ThreePartyShamir):
            def __init__(self, *parts: Any) -> None:
                super().__init__(*parts)
                me, session = self.session.me, self.session
                send, receive = session.send, session.receive

                def end_step(frame: FrameType, event: str, _: object) -> None:
                    if event == "call" and "coterie_learners" in frame.f_code.co_filename:
                        steps[me][-1] += 1
                        if frame.f_code in (send.__func__.__code__, receive.__func__.__code__):  # type: ignore
                            steps[me].append(0)

                sys.setprofile(end_step)

        return Counted(*args)


def count_work(rows: GlmRows, seed: int) -> dict[str, list[int]]:
    work = Work()
    try:
        fit_on_shares(rows, RecordedWire(), seed, make=work.make_party, check_every=4)
    finally:
        sys.setprofile(None)
    return dict(work.steps)


def test_one_patient_changes_nothing_of_what_a_party_does_between_two_messages() -> None:
    rows, other = differ_in_one_patient()
    count_work(rows, 1)  # fills caches of public constants
    one, changed = count_work(rows, 1), count_work(other, 2)
    assert set(one) == set(NAMES)
    for name in NAMES:
        assert len(one[name]) > 400
        assert one[name] == changed[name]


@pytest.mark.long
def test_only_the_iterations_that_everybody_learns_change_the_number_of_messages() -> None:
    """A fit with one more evaluation sends what the shorter one sends, with one step more before its end."""
    shapes: dict[int, list[Mapping[tuple[str, str], list[int]]]] = defaultdict(list)
    for k, rows in enumerate((*differ_in_one_patient(), draw_rows(160, 2, seed=23, effect=1.5))):
        transcript = Transcript()
        outcome = fit_on_shares(rows, transcript.wire, k, make=transcript.make_party)
        shapes[outcome.iterations].append(transcript.shape)
    assert [len(shapes[count]) for count in (2, 3)] == [2, 1]
    assert shapes[2][0] == shapes[2][1]
    for channel in CHANNELS:
        short, long = shapes[2][0][channel], shapes[3][0][channel]
        step = len(long) - len(short)
        assert any(long[:at] + long[at + step :] == short for at in range(len(short) // 2, len(short)))


@pytest.mark.long
def test_separated_patients_open_bits_and_nothing_else() -> None:
    """One bit says that columns are independent, and one after each evaluation that the fit has not settled."""
    rows = draw_rows(160, 2, seed=21)
    transcript = Transcript()
    separated = GlmRows(rows.x, (rows.x[:, 0] > 0.05).astype(float))
    with pytest.raises(NotConverged):
        fit_on_shares(separated, transcript.wire, 1, make=transcript.make_party, iterations=6)
    for name in NAMES:
        assert [[int(v) for v in part] for part in transcript.opened[name]] == [[1], *[[0]] * 6]


def test_a_wrong_share_of_the_result_is_noticed_by_whoever_gets_it() -> None:
    last = len(pair()[0].between("bob", "ana"))
    sent = itertools.count(1)

    def falsify_last(to: str, data: bytes) -> bytes:
        wrong = to == "ana" and next(sent) == last
        return bytes([data[0] ^ 1]) + data[1:] if wrong else data

    with pytest.raises(ProtocolError) as caught:
        fit_on_shares(draw_rows(160, 2, seed=21), seed=1, tamper={"bob": falsify_last}, check_every=4)
    assert caught.value.code == "CO-P645"
