"""Make R's references again where R is installed, and compare them with the stored ones (tests/golden/r).

Exit status 1 if a value differs by more than 1e-11 (estimates by their standard errors, all else relatively). Without
R, or with a package missing, it says what to install and ends with 0: nothing was compared.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "tests" / "golden" / "r"
SCRIPTS = (
    "glm",
    "lm",
    "brglm2",
    "sandwich",
    "nnet",
    "MASS",
    "columns",
    "families",
    "offsets",
    "weights",
    "fixed_effects",
    "survival",
    "cox",
    "cox_more",
    "cox_methods",
    "competing",
    "predict",
    "table_one",
    "validate",
    "categories",
    "contrasts",
    "propensity",
    "profile",
    "standardise",
    "formula",
    "imputations",
)
PACKAGES = (
    "r-base-core r-cran-mass r-cran-nnet r-cran-sandwich r-cran-brglm2 r-cran-survey r-cran-survival r-cran-hmisc "
    "r-cran-proc r-cran-mice r-cran-cmprsk"
)
# Other builds of R round otherwise; Firth's penalty and cloglog models lose the most digits.
BOUND = 1e-11
SECONDS = 600


def read_values(path: Path) -> tuple[str, dict[tuple[str, str], tuple[float, float]]]:
    """The versions of the session, and estimate and standard error by model and term; NaN for what there is not."""
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(lines)
    values = {(row["model"], row["term"]): (_number(row["estimate"]), _number(row["std_error"])) for row in rows}
    return first.removeprefix("# "), values


def _number(word: str) -> float:
    return float("nan") if word == "NA" else float(word)


def largest_difference(stored: Path, fresh: Path) -> tuple[float, str]:
    """How far the two files differ, and where most; infinity where they do not have the same models and terms."""
    (_, before), (_, after) = read_values(stored), read_values(fresh)
    if before.keys() != after.keys():
        return float("inf"), ", ".join(" ".join(key) for key in before.keys() ^ after.keys())
    worst, where = 0.0, ""
    for key, (estimate, error) in before.items():
        scale = abs(estimate) if error != error else max(error, abs(estimate))
        off = abs(after[key][0] - estimate) / (scale or 1.0)
        off = max(off, 0.0 if error != error else abs(after[key][1] / error - 1.0))
        if off >= worst:
            worst, where = off, " ".join(key)
    return worst, where


def compare(script: str, folder: Path) -> bool:
    """Run one script and print how far its values are from the stored ones; whether they are the same."""
    command = ["Rscript", f"{script}.R", str(folder)]
    run = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=SECONDS, check=False)
    if run.returncode:
        print(f"{script}.R failed:\n{run.stderr}")
        return False
    stored, fresh = FOLDER / "stored" / f"{script}.csv", folder / f"{script}.csv"
    worst, where = largest_difference(stored, fresh)
    print(f"{script:<9s} largest difference {worst:.1e} ({where}); stored by {read_values(stored)[0]}")
    if read_values(stored)[0] != read_values(fresh)[0]:
        print(f"{'':<9s} here: {read_values(fresh)[0]}")
    return worst <= BOUND


def main() -> int:
    """Compare all scripts' values, or say what is missing."""
    if not shutil.which("Rscript"):
        print(f"R is not installed; nothing was compared. Debian: apt-get install {PACKAGES}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        same = [compare(script, Path(folder)) for script in SCRIPTS]
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
