"""Rows on a Dask cluster: the bits of one file however they are cut, no row at the node, and faults with a culprit."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.node.clusters import start_cluster, write_mapping, write_parts
from support.node.crooked_wire import speak

from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError
from coterie_learners.study.document import Study
from coterie_learners.study.rows import Block
from coterie_node.analysis.analyse import analyse
from coterie_node.audit.result import Result
from coterie_node.data.cluster import connection, parts, spans
from coterie_node.data.cluster.cluster_rows import ClusterCodes, ClusterRows
from coterie_node.data.cluster.parts import read_summary
from coterie_node.data.commitment import make_snapshot
from coterie_node.data.load import load_site
from coterie_node.errors import ReleaseRefused
from coterie_node.privacy.log import PrivacyLog
from coterie_node.release.gate import Gate
from coterie_node.run.simulate import simulate

N = 3001
HEAD = """
name = "parts"
sites = ["north", "south", "west"]
rows = { missing = "drop", minimum = 1 }
disclosure = { rows = 5, cell = 5 }
"""
VARIABLES = """
[variables.death]
type = "binary"
[variables.age]
type = "number"
range = [0, 120]
[variables.sbp]
type = "number"
range = [60, 260]
[variables.sex]
type = "category"
levels = ["female", "male"]
"""
GLORE = 'formula = "death ~ age + sbp + sex"\nlearner = { name = "glore" }\n'
PLAIN = 'formula = "death ~ age + sbp + sex"\nlearner = { name = "glore", aggregation = "plain", opening = "none" }\n'
COLA = 'formula = "death ~ sex"\nlearner = { name = "cola" }\n'
TABLE = 'formula = "death ~ age + sbp + sex"\nlearner = { name = "table_one" }\n'


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with start_cluster() as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    for site, seed in (("north", 1), ("south", 2), ("west", 3)):
        write_rows(root / f"{site}.csv", seed)
    for name, ends in (("one", []), ("few", [7, 7, 1000]), ("many", list(range(250, 3000, 250)))):
        write_parts(root / "north.csv", root / name, ends)
    return root


def write_rows(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    age, sbp = rng.uniform(20, 95, N), rng.normal(140, 20, N).clip(61, 259)
    sex = rng.integers(0, 2, N)
    death = (rng.random(N) < 1 / (1 + np.exp(-(age - 65) / 12 - 0.4 * sex))).astype(int)
    lines = [
        f"{d},{'' if k % 97 == 5 else repr(a)},{s!r},{('female', 'male')[m]}"
        for k, (d, a, s, m) in enumerate(zip(death, age.tolist(), sbp.tolist(), sex, strict=True))
    ]
    path.write_text("\n".join(["death,age,sbp,sex", *lines]) + "\n")


def make_study(text: str) -> Study:
    return complete_study(Study.from_toml(HEAD + text + VARIABLES))


def read_addresses(folder: Path, north: Path) -> dict[str, Path]:
    return {"north": north, "south": folder / "south.csv", "west": folder / "west.csv"}


def describe_fit(result: Result) -> dict[str, Any]:
    """All that a result says, without times and names of files."""
    plain = result.as_dict()
    return {name: plain[name] for name in plain if name not in ("ledger", "notes", "rows", "seconds")}


@pytest.mark.parametrize("name", ["one", "few", "many"])
def test_parts_give_the_bits_of_one_file_however_they_are_cut(folder: Path, scheduler: str, name: str) -> None:
    study, path = make_study(PLAIN), write_mapping(folder, scheduler, folder / name)
    ours, plain = (analyse(study, read_addresses(folder, north)) for north in (path, folder / "north.csv"))
    assert ours.fit.estimates.tobytes() == plain.fit.estimates.tobytes()
    assert describe_fit(ours) == describe_fit(plain)
    assert ours.as_dict()["ledger"]["payload_bytes"] == plain.as_dict()["ledger"]["payload_bytes"]
    left, right = (load_site(where, study, "north") for where in (path, folder / "north.csv"))
    assert left is not None
    assert right is not None
    assert isinstance(left.rows, ClusterRows)
    assert (left.read, left.n, left.missing, left.events) == (right.read, right.n, right.missing, right.events)
    mine, theirs = make_snapshot(left, b"s" * 32), make_snapshot(right, b"s" * 32)
    assert (mine.root, mine.read, mine.used) == (theirs.root, theirs.read, theirs.used)
    assert mine.provenance["engine"] == "dask"


@pytest.mark.parametrize("text", [GLORE, COLA, TABLE], ids=["glore", "cola", "table_one"])
def test_masked_models_and_tables_run_on_parts_behind_the_gate(folder: Path, scheduler: str, text: str) -> None:
    study, path = make_study(text), write_mapping(folder, scheduler, folder / "few")
    ours, plain = (analyse(study, read_addresses(folder, north)) for north in (path, folder / "north.csv"))
    assert describe_fit(ours) == describe_fit(plain)
    left, right = (load_site(where, study, "north") for where in (path, folder / "north.csv"))
    assert left is not None
    assert right is not None
    assert make_snapshot(left, b"s" * 32).root == make_snapshot(right, b"s" * 32).root


def test_the_privacy_log_is_that_of_one_file(folder: Path, scheduler: str) -> None:
    study, path = make_study(PLAIN), write_mapping(folder, scheduler, folder / "many")
    logs = []
    for north in (path, folder / "north.csv"):
        log = PrivacyLog({"key": b"k" * 32})
        loaded = {name: load_site(at, study, name) for name, at in read_addresses(folder, north).items()}
        rows = {name: item.rows for name, item in loaded.items() if item is not None}
        gates = {name: Gate(study, log=log if name == "north" else PrivacyLog()) for name in study.sites}
        simulate(study, rows, gates=gates)
        logs.append(log)
    ours, plain = ({name: log.storage[name] for name in log.storage} for log in logs)
    assert ours == plain
    assert any(name.startswith("values/") for name in ours)
    assert logs[0].counter == logs[1].counter


@pytest.mark.parametrize("words", ["rare levels", "dominance"])
def test_the_gate_refuses_what_it_refuses_of_one_file(tmp_path: Path, folder: Path, scheduler: str, words: str) -> None:
    text = HEAD + PLAIN + VARIABLES
    if words == "rare levels":
        text = text.replace("cell = 5", "cell = 1600")
    else:  # one patient has nearly all of a column
        text = text.replace("range = [60, 260]", "range = [0, 1e9]").replace(
            '"death ~ age + sbp + sex"', '"death ~ sbp"'
        )
    lines = (folder / "north.csv").read_text().splitlines()
    if words == "dominance":
        head, *rows = (line.split(",") for line in lines)
        lines = [
            ",".join(head),
            *(",".join([*r[:2], "9e8" if k == 9 else str(k % 50 / 100), r[3]]) for k, r in enumerate(rows)),
        ]
    (tmp_path / "north.csv").write_text("\n".join(lines) + "\n")
    write_parts(tmp_path / "north.csv", tmp_path / "parts", [900, 2000])
    study, path = complete_study(Study.from_toml(text)), write_mapping(tmp_path, scheduler, tmp_path / "parts")
    messages = []
    for north in (path, tmp_path / "north.csv"):
        with pytest.raises(ReleaseRefused) as caught:
            analyse(study, read_addresses(folder, north))
        messages.append(caught.value.message)
    assert messages[0] == messages[1]
    assert words in messages[0]


def test_no_row_is_handed_out(folder: Path, scheduler: str) -> None:
    path = write_mapping(folder, scheduler, folder / "few")
    rows, codes = (load_site(path, make_study(text), "north") for text in (PLAIN, COLA))
    assert rows is not None
    assert codes is not None
    assert isinstance(rows.rows, ClusterRows)
    assert isinstance(codes.rows, ClusterCodes)
    for read in (rows.rows.blocks, codes.rows.codes):
        with pytest.raises(DataError) as caught:
            read()
        assert caught.value.code == "CO-D184"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GLORE.replace('"glore"', '"glore", site_intercepts = true'), "needs the rows themselves"),
        (GLORE.replace('"glore"', '"secure_lasso"'), "secure_lasso, with these options"),
        (f'{GLORE}patient = "pid"\n', "identifies patients"),
    ],
)
def test_a_study_that_needs_rows_is_refused_with_the_remedy(
    folder: Path, scheduler: str, text: str, reason: str
) -> None:
    path = write_mapping(folder, scheduler, folder / "few")
    with pytest.raises(DataError, match=reason) as caught:
        load_site(path, make_study(text), "north")
    assert caught.value.code == "CO-D184"
    assert "file or a query" in caught.value.message


def test_conditions_apply_at_the_workers_with_their_flow(folder: Path, scheduler: str) -> None:
    condition = '[cohort]\nwhere = ["age >= 40 or age is missing", "sbp < 180"]\n'
    study, path = make_study(PLAIN + condition), write_mapping(folder, scheduler, folder / "many")
    left, right = (load_site(where, study, "north") for where in (path, folder / "north.csv"))
    assert left is not None
    assert right is not None
    assert left.flow == right.flow
    assert make_snapshot(left, b"s" * 32).root == make_snapshot(right, b"s" * 32).root


def test_a_part_of_another_type_is_named(tmp_path: Path, folder: Path, scheduler: str) -> None:
    write_parts(folder / "north.csv", tmp_path / "mixed", [1000])
    table = pq.read_table(tmp_path / "mixed" / "part-001.parquet")
    text = pa.array([None if v is None else str(v) for v in table["age"].to_pylist()], pa.string())
    pq.write_table(table.set_column(1, "age", text), tmp_path / "mixed" / "part-001.parquet")
    with pytest.raises(DataError, match=r"part-001.parquet.*'age' is stored as 'string'.*'double'") as caught:
        load_site(write_mapping(tmp_path, scheduler, tmp_path / "mixed"), make_study(PLAIN), "north")
    assert caught.value.code == "CO-D183"


def test_a_wrong_value_is_named_with_its_part_and_row(tmp_path: Path, folder: Path, scheduler: str) -> None:
    write_parts(folder / "north.csv", tmp_path / "wrong", [1000])
    table = pq.read_table(tmp_path / "wrong" / "part-001.parquet")
    ages = table["age"].to_pylist()
    ages[3] = 444.0
    pq.write_table(table.set_column(1, "age", pa.array(ages)), tmp_path / "wrong" / "part-001.parquet")
    with pytest.raises(DataError, match=r"part-001.parquet.*row 4 444.0"):
        load_site(write_mapping(tmp_path, scheduler, tmp_path / "wrong"), make_study(PLAIN), "north")


def test_changed_missing_and_no_parts_are_told_apart(tmp_path: Path, folder: Path, scheduler: str) -> None:
    write_parts(folder / "north.csv", tmp_path / "moving", [1000])
    path = write_mapping(tmp_path, scheduler, tmp_path / "moving")
    loaded = load_site(path, make_study(PLAIN), "north")
    assert loaded is not None
    before = loaded.source.digest()
    write_parts(folder / "south.csv", tmp_path / "other", [1000])
    (tmp_path / "other" / "part-001.parquet").replace(tmp_path / "moving" / "part-001.parquet")
    assert loaded.source.digest() != before
    (tmp_path / "moving" / "part-001.parquet").unlink()
    with pytest.raises(DataError, match=r"part-001.parquet.*No such file"):
        loaded.source.digest()
    (tmp_path / "moving" / "part-000.parquet").unlink()
    with pytest.raises(DataError, match="see 0 files") as caught:
        load_site(path, make_study(PLAIN), "north")
    assert caught.value.code == "CO-D183"


def test_a_scheduler_that_does_not_answer_is_left_in_time(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CLUSTER_SECONDS", 1)
    path = write_mapping(tmp_path, "tcp://127.0.0.1:9", folder / "few")
    with pytest.raises(DataError, match=r"tcp://127\.0\.0\.1:9 does not answer within 1 s") as caught:
        load_site(path, make_study(PLAIN), "north")
    assert caught.value.code == "CO-D180"


def test_a_scheduler_that_takes_a_connection_and_says_nothing_is_left_in_time(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CLUSTER_SECONDS", 1)
    with speak(b"") as port:
        path = write_mapping(tmp_path, f"tcp://127.0.0.1:{port}", folder / "few")
        with pytest.raises(DataError, match="does not answer within 1 s") as caught:
            load_site(path, make_study(PLAIN), "north")
    assert caught.value.code == "CO-D180"


def test_a_worker_of_another_version_is_refused(folder: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "WORKER_PROGRAM", connection.WORKER_PROGRAM | {"numpy": "1.0"})
    monkeypatch.setattr(connection, "read_program", lambda: {"coterie": "0", "numpy": "1.0", "pyarrow": "0"})
    with pytest.raises(DataError, match="has coterie 0 at") as caught:
        load_site(write_mapping(folder, scheduler, folder / "few"), make_study(PLAIN), "north")
    assert caught.value.code == "CO-D185"


def test_work_that_does_not_end_is_left_in_time(folder: Path, scheduler: str) -> None:
    loaded = load_site(write_mapping(folder, scheduler, folder / "few"), make_study(PLAIN), "north")
    assert loaded is not None
    rows: Any = loaded.rows
    cluster = rows.cluster
    cluster.source = cluster.source.model_copy(update={"seconds": 1})
    with pytest.raises(DataError, match="gave no result for 1 s; it waits for") as caught:
        list(replace(rows, cluster=cluster).over_blocks(sleep_long))
    assert caught.value.code == "CO-D182"


@pytest.mark.long  # processes start and die
def test_the_work_of_a_worker_that_dies_is_done_again_and_given_up_at_last(tmp_path: Path, folder: Path) -> None:
    with start_cluster(processes=True) as cluster:
        path = write_mapping(tmp_path, cluster.scheduler_address, folder / "many")
        loaded = load_site(path, make_study(PLAIN), "north")
        plain = load_site(folder / "north.csv", make_study(PLAIN), "north")
        assert loaded is not None
        assert plain is not None
        rows: Any = loaded.rows
        total = sum(rows.over_blocks(partial(die_once, tmp_path / "died")))
        assert (tmp_path / "died").exists()
        theirs: Any = plain.rows
        assert total == sum(float(block.y.sum()) for block in theirs.blocks())
        with pytest.raises(DataError, match="lost its workers at the same part") as caught:
            list(rows.over_blocks(partial(die_once, None)))
        assert caught.value.code == "CO-D181"
        rows.cluster.source = rows.cluster.source.model_copy(update={"seconds": 5})
        cluster.close()
        with pytest.raises(DataError, match=r"is gone|does not answer") as caught:
            list(rows.over_blocks(partial(die_once, tmp_path / "died")))
        assert caught.value.code in ("CO-D181", "CO-D182")


@pytest.mark.long  # keys are made, and a handshake fails in its time
def test_tls_takes_the_certificates_beside_the_mapping_and_no_others(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CLUSTER_SECONDS", 3)
    make: Any = distributed.Security.temporary
    ours, strange = make(), make()
    with start_cluster(security=ours) as cluster:
        assert cluster.scheduler_address.startswith("tls://")
        more = 'ca = "ca.pem"\ncertificate = "node.pem"\nkey = "node.key"\n'
        path = write_mapping(tmp_path, cluster.scheduler_address, folder / "few", more)
        with pytest.raises(DataError, match=r"no file .*ca\.pem for the cluster's TLS"):
            load_site(path, make_study(PLAIN), "north")
        write_pem(tmp_path, ours)
        loaded = load_site(path, make_study(PLAIN), "north")
        assert loaded is not None
        assert loaded.read == N
        write_pem(tmp_path, strange)
        with pytest.raises(DataError) as caught:
            load_site(path, make_study(PLAIN), "north")
        assert caught.value.code == "CO-D180"


def write_pem(folder: Path, security: Any) -> None:
    for name, field in (("ca.pem", "tls_ca_file"), ("node.pem", "tls_client_cert"), ("node.key", "tls_client_key")):
        (folder / name).write_text(getattr(security, field))


def die_once(marker: Path | None, block: Block) -> float:
    """The sum of the outcome, at the second try."""
    if marker is None or not marker.exists():
        if marker is not None:
            marker.touch()
        os._exit(1)
    return float(block.y.sum())


def sleep_long(block: object) -> None:
    time.sleep(2)


def test_a_part_that_changes_between_passes_is_named(tmp_path: Path, folder: Path, scheduler: str) -> None:
    write_parts(folder / "north.csv", tmp_path / "moving", [1000])
    loaded = load_site(write_mapping(tmp_path, scheduler, tmp_path / "moving"), make_study(PLAIN), "north")
    assert loaded is not None
    rows: Any = loaded.rows
    assert sum(rows.over_blocks(count_rows)) == loaded.n
    write_parts(folder / "south.csv", tmp_path / "other", [1000])
    (tmp_path / "other" / "part-001.parquet").replace(tmp_path / "moving" / "part-001.parquet")
    with pytest.raises(DataError, match=r"part-001.parquet.*changed since it was checked") as caught:
        list(rows.over_blocks(count_rows))
    assert caught.value.code == "CO-D130"


def test_parts_without_rows_take_part_and_do_not_count(tmp_path: Path, folder: Path, scheduler: str) -> None:
    write_parts(folder / "north.csv", tmp_path / "gaps", [1000])
    empty = pq.read_table(tmp_path / "gaps" / "part-000.parquet").slice(0, 0)
    for name in ("part-000a", "part-002"):
        pq.write_table(empty, tmp_path / "gaps" / f"{name}.parquet")
    study = make_study(PLAIN)
    gaps, one = (
        load_site(write_mapping(tmp_path, scheduler, where), study, "north")
        for where in (tmp_path / "gaps", folder / "one")
    )
    assert gaps is not None
    assert one is not None
    assert make_snapshot(gaps, b"s" * 32).root == make_snapshot(one, b"s" * 32).root
    for path in (tmp_path / "gaps").iterdir():
        pq.write_table(empty, path)
    with pytest.raises(DataError, match="no rows") as caught:
        load_site(write_mapping(tmp_path, scheduler, tmp_path / "gaps"), study, "north")
    assert caught.value.code == "CO-D103"


def lie_of_rows(job: Any, path: str) -> Any:
    return replace(read_summary(job, path), n=10**9)


def lie_of_digest(job: Any, path: str) -> Any:
    return replace(read_summary(job, path), digest=b"x")


def lie_of_path(job: Any, path: str) -> Any:
    return replace(read_summary(job, path), path="/etc/passwd")


def lie_of_range(job: Any, path: str) -> Any:
    return replace(read_summary(job, path), high={"age": float("nan")})


def lie_of_kind(job: Any, path: str) -> Any:
    return {"n": 3}


@pytest.mark.parametrize("lie", [lie_of_rows, lie_of_digest, lie_of_path, lie_of_range, lie_of_kind])
def test_counts_that_no_part_can_have_are_refused(
    folder: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch, lie: Any
) -> None:
    monkeypatch.setattr(parts, "read_summary", lie)
    with pytest.raises(DataError, match=r"part-000.parquet.*worker") as caught:
        load_site(write_mapping(folder, scheduler, folder / "few"), make_study(PLAIN), "north")
    assert caught.value.code == "CO-D186"


@pytest.mark.parametrize("answer", [None, [], [1.0, 2.0, 3.0], {"a": 1}])
def test_sums_of_more_or_fewer_blocks_than_asked_for_are_refused(
    folder: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    loaded = load_site(write_mapping(folder, scheduler, folder / "one"), make_study(PLAIN), "north")
    assert loaded is not None
    monkeypatch.setattr(spans, "over_blocks", partial(answer_with, answer))
    rows: Any = loaded.rows
    with pytest.raises(DataError, match=r"1 block of 2970 rows .*worker answered") as caught:
        list(rows.over_blocks(count_rows))
    assert caught.value.code == "CO-D186"
    with pytest.raises(DataError) as caught:
        make_snapshot(loaded, b"s" * 32)
    assert caught.value.code == "CO-D186"


def answer_with(answer: Any, *_: object) -> Any:
    return answer


def count_rows(block: Block) -> int:
    return len(block)
