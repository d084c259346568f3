"""The pool's levels by bits: the answers are those of the pooled table, and no message holds a site's counts."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
from support.learners.parties import PartyChannel, RecordedWire

from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Site
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError, Withheld
from coterie_learners.numeric.array import Array
from coterie_learners.shares.field import PrimeField
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayRows
from coterie_learners.sums.opening import bits
from coterie_learners.sums.opening.counts import Opening

FLOOR = 5
WIDTH = PrimeField.of_size(75).width


def study_of(sites: int, outcome: str = "binary", formula: str = "y ~ a + g") -> Study:
    names = [f"s{k}" for k in range(sites)]
    counts = outcome != "binary"
    kind = 'type = "count"\nrange = [0, 9]' if counts else 'type = "binary"'
    family = "poisson" if counts else "binomial"
    return complete_study(
        Study.from_toml(
            f'name = "bits"\nsites = {names}\nformula = "{formula}"\n[learner]\nname = "glore"\n'
            f'opening = "bits"\nfamily = "{family}"\n'
            f'[variables.y]\n{kind}\n[variables.a]\ntype = "binary"\n[variables.g]\ntype = "category"\n'
            'levels = ["p", "q", "r"]\n'
        )
    )


@dataclass(frozen=True)
class Pool:
    """Counts of levels at each site, and what is compared of their sum."""

    study: Study
    counts: Mapping[str, dict[str, Array]]

    @property
    def opening(self) -> Opening:
        counts = self.counts

        class Counted(Opening):
            def count(self, site: Site) -> dict[str, Array]:
                return counts[site.name]

        rows = ArrayRows(np.zeros((0, len(Design(self.study).columns))), np.zeros(0))
        return Counted(Design(self.study), FLOOR, True, lambda _: rows, by_bits=True)

    def compare(self, wire: RecordedWire) -> list[Payload]:
        """What each site returns of the comparison."""
        names = self.study.sites

        def run(name: str) -> Payload:
            shared = {peer: "/".join(sorted((name, peer))).encode().ljust(32, b".") for peer in names if peer != name}
            site = Site(self.study, name, None, name.encode().ljust(32, b"."), shared, session="one", parties=names)
            return bits.compare_counts(site, PartyChannel(wire, name), self.opening)

        with ThreadPoolExecutor(len(names)) as crew:
            return list(crew.map(run, names))

    def answers(self) -> list[int]:
        """The answers by the pooled table; after a yes there is none of what may be part of that level."""
        keys = ("patients", "events", "sites")
        n, events, sites = (np.sum([count[key] for count in self.counts.values()], axis=0) for key in keys)
        full = (n > 0) & (n == events)
        if self.study.variables["y"].type != "binary" and full[0]:
            full = np.zeros(len(n), bool)
        # Each answer, and its stage: that of products of two after levels, that all have the outcome one later.
        joined = np.array([1 + name.count(":") + name.count(" and ") for name in self.opening.names])
        rows = n[0] <= len(Design(self.study).columns)
        answers = np.array([*((n > 0) & (n < FLOOR)), *((sites > 0) & (sites < 3)), *full, rows])
        stages = np.array([*joined, *joined, *(joined + 1), 1])
        last = stages[answers].min(initial=9)
        return [int(bit) for bit in answers & (stages <= last)]


def draw(study: Study, seed: int, most: int = 4) -> Pool:
    rng, names = np.random.default_rng(seed), Pool(study, {}).opening.names
    counts = {}
    for site in study.sites:
        patients = rng.integers(0, most, len(names)) * rng.integers(0, 2, len(names))
        events = np.minimum(patients, rng.integers(0, most, len(names)))
        parts = (patients, events, patients > 0)
        counts[site] = {
            key: part.astype(float) for key, part in zip(("patients", "events", "sites"), parts, strict=True)
        }
    return Pool(study, counts)


@pytest.mark.parametrize(
    ("sites", "outcome", "most", "formula"),
    [
        (3, "binary", 4, "y ~ a + g"),
        (4, "count", 3, "y ~ a + g"),
        (6, "binary", 3, "y ~ a + g"),
        (3, "binary", 30, "y ~ a * g"),
    ],
)
def test_bits_are_those_of_the_pooled_table(sites: int, outcome: str, most: int, formula: str) -> None:
    study, seen = study_of(sites, outcome, formula), np.zeros(0)
    for seed in range(6):
        pool = draw(study, seed, most)
        posts = pool.compare(RecordedWire())
        assert [post["bits"].tolist() for post in posts] == [pool.answers()] * sites
        seen = np.append(seen, pool.answers())
    assert 0 < seen.mean() < 1


def fill(study: Study, **patients: int) -> Pool:
    """Ten patients of each level at each site, and three with the outcome; of the levels named here others."""
    names = Pool(study, {}).opening.names
    counts = {}
    for k, site in enumerate(study.sites):
        n = np.array([patients.get(name, 30) // 3 + (k < patients.get(name, 30) % 3) for name in names], float)
        counts[site] = {"patients": n, "events": np.minimum(3.0, n), "sites": (n > 0).astype(float)}
    return Pool(study, counts)


@pytest.mark.parametrize(
    ("patients", "answers"),
    [
        ({}, set()),
        # A level, so that nothing is said of its products, nor of who has the outcome.
        ({"a": 4, "a:g[q]": 2}, {"a small"}),
        # A product: that all of it have the outcome, or are at one site, is the next stage or the same.
        ({"a:g[q]": 1}, {"a:g[q] small", "a:g[q] few"}),
        # All of a level have the outcome: of its products nobody knows it, while a small one is of the same stage.
        ({"a": 9, "a:g[q]": 9}, {"a full"}),
        ({"a": 9, "a:g[r]": 3}, {"a full", "a:g[r] small"}),
        ({"a:g[q]": 9}, {"a:g[q] full"}),
    ],
)
def test_bits_of_products_and_of_outcomes_come_after_those_of_levels(
    patients: dict[str, int], answers: set[str]
) -> None:
    pool = fill(study_of(3, formula="y ~ a * g"), **patients)
    post = pool.compare(RecordedWire())[0]["bits"]
    names = [f"{name} {kind}" for kind in ("small", "few", "full") for name in pool.opening.names]
    assert {name for name, bit in zip([*names, "rows"], post.tolist(), strict=True) if bit} == answers
    assert post.tolist() == pool.answers()


def test_a_count_outcome_that_everybody_has_is_no_full_cell() -> None:
    pool = draw(study_of(3, "count"), 1, 9)
    for count in pool.counts.values():
        count["events"] = count["patients"].copy()
    levels = len(pool.opening.names)
    assert sum(pool.answers()[2 * levels : 3 * levels]) == 0
    assert pool.compare(RecordedWire())[0]["bits"].tolist() == pool.answers()


def test_two_computing_parties_read_no_counts_of_a_site_that_shares_them() -> None:
    pool, wire = draw(study_of(5), 3, 50), RecordedWire()
    pool.compare(wire)
    field, size = PrimeField.of_size(75), 3 * len(pool.opening.names)
    sent = {to: data for sender, to, data in wire.log if sender == "s4" and len(data) == WIDTH * size}
    shares = [field.unpack(sent[name], (size,)) for name in ("s0", "s1")]
    padded = (2 * shares[0] - shares[1]) % field.p  # the line through both at zero
    own = np.concatenate([pool.counts["s4"][key] for key in ("patients", "events", "sites")]).astype(int)
    assert not set(padded.tolist()) & set(own.tolist())
    assert min(int(value).bit_length() for value in padded) > 64


def test_no_post_holds_more_than_bits() -> None:
    post = draw(study_of(3), 2, 50).compare(RecordedWire())[0]
    assert set(post) == {"bits", "rounds", "sent", "transcript"}
    assert set(post["bits"].tolist()) <= {0, 1}


def test_a_study_stops_at_the_first_level_that_a_bit_names() -> None:
    opening = draw(study_of(3), 0).opening
    levels = len(opening.names)
    words = {0: "small level", levels: "few sites", 2 * levels: "full cell", 3 * levels: "rows and columns"}
    for place, kind in words.items():
        answers = np.zeros(3 * levels + 1, np.uint8)
        answers[place] = 1
        with pytest.raises(Withheld, match=kind):
            bits.check_bits(opening, {"bits": answers})
    bits.check_bits(opening, {"bits": np.zeros(3 * levels + 1, np.uint8)})


def test_more_patients_than_digits_are_refused() -> None:
    pool = draw(study_of(3), 0)
    pool.counts["s0"]["patients"][0] = 2.0**31
    with pytest.raises(DataError, match="counts"):
        pool.compare(RecordedWire(seconds=2))
