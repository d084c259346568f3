"""Build an earlier release from its commit: its wheel, and a bundle of each learner's demo. Verify these bundles today.

Usage: previous_release.py COMMIT FOLDER. The folder must not exist. Nothing of it belongs into the repository,
because anybody can build it again.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

from environment import ROOT, build_wheel, make_environment

# What the demos need; a release before `site` was an extra knows no such name, and has what it brings.
EXTRAS = "site,demo,he"
# What `coterie audit verify` says: the model was computed again, or the record is whole and the model was not.
GRADES = {0: "PASS", 25: "RECORD INTACT"}


def extract_tree(commit: str, folder: Path) -> None:
    """The files of a commit, without its history."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")


def list_demos(programs: Path) -> list[str]:
    """The learners of the release that have a demo."""
    script = "from coterie_node.demo.cases import list_cases; print(*list_cases())"
    done = subprocess.run([programs / "python", "-c", script], cwd=programs, check=True, capture_output=True, text=True)
    return done.stdout.split()


def make_bundle(programs: Path, learner: str, folder: Path) -> Path:
    """The bundle of a demo that the release runs; the run itself is kept in a temporary folder."""
    bundle = folder / f"{learner}.zip"
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        for words in (["demo", "--learner", learner, "--keep", run], ["audit", "export", "1", bundle, "--at", run]):
            command = [str(word) for word in (programs / "coterie", *words)]
            # The working folder is this tree, where the release finds Anvil.
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return bundle


def verify_bundle(bundle: Path) -> str:
    """What this tree's `coterie audit verify` says of a bundle; SystemExit with its words where it does not pass."""
    verify = [sys.executable, "-m", "coterie_node", "audit", "verify", str(bundle)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    if done.returncode not in GRADES:
        raise SystemExit(f"{bundle.name}: exit status {done.returncode}.\n{done.stdout}{done.stderr}")
    return GRADES[done.returncode]


def main() -> None:
    """Build, run the demos, verify."""
    if len(sys.argv) != 3:
        raise SystemExit("Usage: previous_release.py COMMIT FOLDER")
    commit, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    folder.mkdir()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        extract_tree(commit, place / "tree")
        wheel = build_wheel(folder, place / "tree")
        programs = make_environment(place / "env", f"{wheel}[{EXTRAS}]", tree=place / "tree")
        for learner in list_demos(programs):
            bundle = make_bundle(programs, learner, folder)
            print(f"{wheel.name}, {learner}: {verify_bundle(bundle)} by this tree")


if __name__ == "__main__":
    main()
