"""Whatever a parser is given, it answers with an error of ours: within 500 MB, and for inputs of up to 10 MB."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.red_team.corpus import CORPUS, SAMPLES, make_header, make_patients, make_zip
from support.red_team.readers import NETWORK, READERS, STUDY, read_each, try_reading

from coterie_chain.errors import LedgerMismatch
from coterie_chain.ethereum.rlp_bounds import decode_rlp, split_items
from coterie_chain.store.cid import encode_base58
from coterie_learners.core import payload as pay
from coterie_learners.core.payload import STORED, Stamp
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import StudyError
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.formula import parse_formula
from coterie_learners.study.toml_text import parse_toml

TESTS = Path(__file__).parents[1]
# These are asked for several things; what is wrong as one answer may be right as another.
ANSWERERS = {"chain", "store"}
# What anybody may send, and be understood.
ACCEPTED = {("formula", "powers"), ("policy", "empty")}


def read_corpus(folder: Path, *parser: str) -> list[dict[str, str]]:
    """Let a process of its own read inputs; it may take 500 MB beyond what its imports take."""
    environment = os.environ | {"PYTHONPATH": str(TESTS), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "support.red_team.corpus", *parser, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.long
def test_one_hostile_input_of_each_parser_ends_with_an_error_of_ours_within_its_memory(tmp_path: Path) -> None:
    lines = read_corpus(tmp_path)
    assert {line["parser"]: line["case"] for line in lines} == SAMPLES
    assert {line["parser"] for line in lines if line["outcome"] == "accepted"} <= ANSWERERS


@pytest.mark.long
@pytest.mark.parametrize("parser", CORPUS)
def test_every_hostile_input_ends_with_an_error_of_ours_within_its_memory(parser: str, tmp_path: Path) -> None:
    lines = read_corpus(tmp_path, parser)
    assert len(lines) > 5
    if parser not in ANSWERERS:
        assert {(parser, x["case"]) for x in lines if x["outcome"] == "accepted"} == {
            a for a in ACCEPTED if a[0] == parser
        }


@pytest.mark.parametrize("parser", ["chain", "store"])
@pytest.mark.parametrize("answer", [b"", b"null", b"[]", b"{}", b'"x"', b'{"result": ', b"<html>"])
def test_a_node_that_answers_nonsense_is_unreachable_or_corrupt_by_every_way(
    parser: str, answer: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "answer.json"
    path.write_bytes(answer)
    outcomes = READERS[parser][1](path)
    assert isinstance(outcomes, tuple)
    wanted = {"CO-C303"} if parser == "chain" else {"CO-C202", "CO-C208", "CO-C209"}
    assert set(outcomes) <= wanted | ({"accepted"} if parser == "store" else set())
    assert outcomes[0] in wanted


# Single bounds


def test_a_formula_is_counted_before_it_is_expanded() -> None:
    with pytest.raises(StudyError, match="more than 2000 terms") as caught:
        parse_formula("y ~ " + "*".join(f"v{k}" for k in range(30)))
    assert caught.value.code == "CO-S203"
    assert len(parse_formula("y ~ " + "*".join(f"v{k}" for k in range(10))).terms) == 1023


def test_columns_are_counted_before_they_are_made() -> None:
    levels = json.dumps([f"l{k}" for k in range(400)])
    names = [f"c{k}" for k in range(5)]
    tables = "".join(f'[variables.{name}]\ntype = "category"\nlevels = {levels}\n' for name in names)
    study = Study.from_toml(STUDY.replace("age + sex", "*".join(names)) + tables)
    with pytest.raises(StudyError, match="columns; the limit is 2000"):
        _ = Design(study).columns


def test_a_product_of_many_numbers_has_the_range_of_all_its_corners() -> None:
    names = [f"n{k}" for k in range(60)]
    tables = "".join(f'[variables.{name}]\ntype = "number"\nrange = [-1, 2]\n' for name in names)
    study = Study.from_toml(STUDY.replace("age + sex", ":".join(names)) + tables)
    column = Design(study).columns[1]
    assert (column.centre - column.scale, column.centre + column.scale) == (-(2.0**59), 2.0**60)


def test_numbers_of_a_hundred_thousand_digits_are_refused_in_words() -> None:
    with pytest.raises(StudyError, match="a number of thousands of digits") as caught:
        Study.from_toml("a = " + "9" * 100_000)
    assert caught.value.code == "CO-S101"


def test_keys_of_many_parts_are_refused_and_sentences_with_dots_are_not() -> None:
    with pytest.raises(ValueError, match="more than 16 parts"):
        parse_toml(".".join("a" * 17) + " = 1")
    assert parse_toml(".".join("a" * 16) + " = 1")
    assert parse_toml('a = "' + "One. Two words. " * 40 + '"')


@pytest.mark.parametrize("sign", ["\u202e", "\u2066", "\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\U000e0041"])
@pytest.mark.parametrize("place", ["title", "unit", "label", "level"])
def test_no_text_of_a_study_has_characters_that_nobody_sees(sign: str, place: str) -> None:
    texts = {
        "title": STUDY.replace('"stroke"', f'"stroke"\ntitle = "a{sign}b"'),
        "unit": STUDY.replace("range =", f'unit = "a{sign}b"\nrange ='),
        "label": STUDY.replace("range =", f'label = "a{sign}b"\nrange ='),
        "level": STUDY.replace('"m"', f'"m{sign}"'),
    }
    with pytest.raises(StudyError, match="none that nobody sees") as caught:
        Study.from_toml(texts[place])
    assert sign not in str(caught.value)


def test_letters_of_any_tongue_stay() -> None:
    title = "Herz-Studie Zürich, καρδιά, قلب, 心脏, हृदय"
    assert Study.from_toml(STUDY.replace('"stroke"', f'"stroke"\ntitle = "{title}"')).title == title


@pytest.mark.parametrize("raw", [bytes(1 << 20), b"\x80" * (1 << 20), b"\xc0" * (1 << 20), b"\xc1\xc0" * (1 << 19)])
def test_rlp_of_many_small_items_is_refused_before_it_is_decoded(raw: bytes) -> None:
    with pytest.raises(LedgerMismatch, match="too many items of fewer than 32 bytes") as caught:
        list(split_items(raw, "evidence", 1 << 13, 32))
    assert caught.value.code == "CO-C350"
    whole = b"\xfa" + len(raw).to_bytes(3) + raw
    with pytest.raises(LedgerMismatch, match="too many items"):
        decode_rlp(whole, "evidence")


def test_deep_rlp_is_refused() -> None:
    raw = b"\xc0"
    for _ in range(3000):
        head = bytes([0xC0 + len(raw)]) if len(raw) < 56 else b"\xf9" + len(raw).to_bytes(2)
        raw = head + raw
    with pytest.raises(LedgerMismatch, match="too many items"):
        decode_rlp(raw, "evidence")


# Fuzzing: samples that are right, changed at random, with a budget of examples and the same seed in every run


def samples() -> dict[str, bytes]:
    """One input for each parser that it takes."""
    raw = pay.encode(Stamp("0" * 64, "stats/0", "north", 0), {"n": np.float64(3.0), "x": np.arange(4.0)})
    hex32, address = "0x" + "12" * 32, "0x" + "34" * 20
    member = {"name": "north", "address": address, "sealing": hex32}
    contracts = {"chain_id": 1, "catalog": address, "genesis": hex32, "block": 1, "founders": {"north": address}}
    founder = {"site": "north", "chain": "clique", "sealer": address, "operator": address, "sealing": "12" * 32}
    founder |= {"enode": f"enode://{'ab' * 64}@10.0.0.1:30303?discport=0", "swarm": "/ip4/10.0.0.1/tcp/4001"}
    founder |= {"peer": encode_base58(bytes.fromhex("002408011220") + b"\7" * 32)}
    return {
        "study": STUDY.encode(),
        "document": complete_study(Study.from_toml(STUDY)).document,
        "formula": b"died ~ age + sex + age:sex + age^2 - 1",
        "payload": pay.pack(raw, STORED),
        "invitation": json.dumps({"contracts": contracts, "members": [member]}).encode(),
        "card": json.dumps({**member, "peer": hex32}).encode(),
        "founder": json.dumps(founder).encode(),
        "decision": json.dumps({"study": "0" * 64, "action": "approve", "at": "2026"}).encode(),
        "node.toml": b'site = "north"\n[api]\nport = 9464\n[policy]\nlearners = ["glore"]\n',
        "policy": b"ask = true\n[floors]\nrows = 10\n",
        "network": NETWORK.to_json().encode(),
        "result": json.dumps({"terms": [{"term": "a", "estimate": 1.0}], "n": 3}).encode(),
        "csv": b'died,age,sex\n0,50,f\n1,60.5,"m"\n0,41,m\n1,70,f\n0,33,f\n1,52,m\n',
        "parquet": make_patients(),
        "bundle": make_zip({"bundle.json": b"{}", "chain/headers.rlp": make_header(0)}),
    }


@st.composite
def changes(draw: st.DrawFn, sample: bytes) -> bytes:
    """A sample with parts left out, doubled, exchanged or set to other bytes."""
    out = io.BytesIO(sample).read()
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(len(out) - 1, 0)))
        end = min(len(out), start + draw(st.integers(0, 16)))
        part = draw(
            st.sampled_from([b"", out[start:end] * 2, b"\0", b"\xff", b'"', b"[", b"{", b"9" * 30, b"-1", b"1e999"])
        )
        out = out[:start] + part + out[end:]
    return out


def check_changes(parser: str, folder: Path, examples: int) -> None:
    """Change the sample of a parser that often; each change is taken, or refused with an error of ours."""
    name, read = READERS[parser]
    path = folder / name

    @settings(max_examples=examples, derandomize=True, deadline=None, database=None)
    @given(content=changes(samples()[parser]))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        outcome = try_reading(lambda: read(path))
        assert outcome == "accepted" or outcome.startswith("CO-")

    check()


@pytest.mark.parametrize("examples", [5, pytest.param(60, marks=pytest.mark.long)])
@pytest.mark.parametrize("parser", samples())
def test_a_changed_input_is_taken_or_refused_and_nothing_else(parser: str, examples: int, tmp_path: Path) -> None:
    check_changes(parser, tmp_path, examples)


def test_the_samples_are_inputs_that_the_parsers_take(tmp_path: Path) -> None:
    for parser, sample in samples().items():
        name, read = READERS[parser]
        (tmp_path / name).write_bytes(sample)
        outcome = read_each(lambda: read(tmp_path / name))  # noqa: B023 - called at once
        assert outcome == ("accepted",) or parser == "bundle", (parser, outcome)
