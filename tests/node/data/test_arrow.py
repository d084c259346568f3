"""Arrow's functions by name are those of pyarrow.compute; a plain file needs no more than them."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import run
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as real
import pytest

from coterie_node.data import arrow

WORDS = pa.array(["a", None, "", "NA", "b", "a"])
NUMBERS = pa.array([1.5, None, float("nan"), -0.0, 3e300, 7.0])
FLAGS = pa.array([True, False, True, False, True, False])
CALLS: dict[str, tuple[Any, ...]] = {
    "is_null": (NUMBERS,),
    "or_": (FLAGS, FLAGS),
    "if_else": (FLAGS, WORDS, None),
}


@pytest.mark.parametrize("name", list(CALLS))
def test_plain_functions_are_those_of_the_module(name: str) -> None:
    mine, theirs = getattr(arrow.pc, name), getattr(real, name)
    assert mine(*CALLS[name]).to_pylist() == theirs(*CALLS[name]).to_pylist()


@pytest.mark.parametrize("name", ["is_in", "index_in"])
def test_lookups_find_what_the_module_s_find(name: str) -> None:
    known = pa.array(["b", "NA"])
    mine, theirs = getattr(arrow.pc, name), getattr(real, name)
    assert mine(WORDS, value_set=known).equals(theirs(WORDS, value_set=known))


def test_casts_give_the_same_bits_and_the_same_refusals() -> None:
    text = pa.array(["1.1", "2e-3", "-0", "1e400", None, "0.1000000000000000055511151231257827"])
    mine, theirs = arrow.pc.cast(text, pa.float64(), safe=False), real.cast(text, pa.float64(), safe=False)
    np.testing.assert_array_equal(np.array(mine).view(np.uint64), np.array(theirs).view(np.uint64))
    for cast in (arrow.pc.cast, real.cast):
        with pytest.raises(pa.ArrowInvalid):
            cast(pa.array(["1.1", "word"]), pa.float64(), safe=False)
        with pytest.raises(pa.ArrowInvalid):
            cast(pa.array([1.5]), pa.int64())


def test_another_function_comes_from_the_module() -> None:
    assert arrow.pc.utf8_length(pa.array(["abc"])).to_pylist() == [3]


@pytest.mark.long
def test_a_plain_file_is_fitted_without_the_wrappers_of_all_functions(tmp_path: Path) -> None:
    for site in (0, 1, 2):
        rows = "".join(f"{k % 3 % 2},{(k * 37 + site) % 101 / 20}\n" for k in range(90))
        (tmp_path / f"{'abc'[site]}.csv").write_text(f"y,x\n{rows}")
    study = 'name = "s"\nsites = ["a", "b", "c"]\nformula = "y ~ x"\nlearner = {name = "glore"}\n'
    study += '[variables]\ny = {type = "binary"}\nx = {type = "number", range = [0, 9]}\n'
    (tmp_path / "study.toml").write_text(study)
    lines = f"""
import sys
from pathlib import Path
from coterie_node.analysis.analyse import analyse
from coterie_node.run.study_files import load_study
root = Path({str(tmp_path)!r})
analyse(load_study(root / "study.toml"), {{site: root / f"{{site}}.csv" for site in "abc"}})
print([name for name in ("pyarrow.csv", "pyarrow.compute", "numpy.ma") if name in sys.modules])
"""
    done = run([sys.executable, "-c", lines], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['pyarrow.csv']"
