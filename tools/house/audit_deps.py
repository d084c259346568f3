"""Ask the advisory databases about every pinned package: Python, npm, Go, base images.

Each tool gets a minute or so. Where its database cannot be reached, the versions are listed with the day on which they
were pinned, so that somebody with a network can look them up. Exit status 1 for a finding; docs/dependencies.md has the
answer to each.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PIP_AUDIT = "pip-audit==2.10.1"
GOVULNCHECK = "golang.org/x/vuln/cmd/govulncheck@v1.1.4"
GO_PROGRAMS = {"geth": "github.com/ethereum/go-ethereum/cmd/geth", "ipfs": "github.com/ipfs/kubo/cmd/ipfs"}
SECONDS = 120
_PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^ ;\\]+)", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """What came of one question: the findings, or None where no database answered."""

    findings: tuple[str, ...] | None


@dataclass(frozen=True)
class Question:
    """A list of pinned packages, and how to ask about it."""

    name: str
    file: Path
    ask: Callable[[Path], Outcome]

    def count_pins(self) -> int:
        """How many packages the file pins."""
        text = self.file.read_text()
        if self.file.name == "package-lock.json":
            return sum(bool(name) for name in json.loads(text)["packages"])
        return len(_PIN.findall(text)) or len(re.findall(r"^\s+\S+ v\d", text, re.MULTILINE))

    def find_date(self) -> str:
        """The day on which the file last changed, by the repository."""
        done = run("git", "log", "-1", "--format=%cs", "--", self.file, cwd=ROOT)
        return done.stdout.strip() or "not committed yet"


def run(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command's outcome; a silent one after its time counts as failed."""
    command = [str(word) for word in words]
    try:
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (subprocess.TimeoutExpired, FileNotFoundError) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


def ask_pip(file: Path) -> Outcome:
    """Ask pip-audit, installed apart, about a lock file."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder, "bin", "python")
        if run(python, "-m", "pip", "install", "--quiet", PIP_AUDIT, cwd=ROOT).returncode:
            return Outcome(None)
        options = ("--requirement", file, "--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off")
        return read_pip(run(python, "-m", "pip_audit", *options, cwd=ROOT).stdout)


def read_pip(text: str) -> Outcome:
    """The findings of pip-audit's JSON; a database that knows none of the packages is one that was not reached."""
    try:
        packages = json.loads(text)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return Outcome(None)
    if all("skip_reason" in package for package in packages):
        return Outcome(None)
    return Outcome(tuple(f"{p['name']} {p['version']}: {v['id']}" for p in packages for v in p.get("vulns", ())))


def ask_npm(file: Path) -> Outcome:
    """Ask npm about a package-lock.json."""
    return read_npm(run("npm", "audit", "--json", cwd=file.parent).stdout)


def read_npm(text: str) -> Outcome:
    """The findings of npm's JSON."""
    try:
        found = json.loads(text)["vulnerabilities"]
    except (ValueError, KeyError, TypeError):
        return Outcome(None)
    return Outcome(tuple(f"{name}: {entry['severity']}" for name, entry in found.items()))


def ask_go(file: Path) -> Outcome:
    """Ask govulncheck about a Go module."""
    return read_go(run("go", "run", GOVULNCHECK, "-format", "json", GO_PROGRAMS[file.parent.name], cwd=file.parent))


def read_go(done: subprocess.CompletedProcess[str]) -> Outcome:
    """The findings of govulncheck's JSON; it ends with 0 where it could look."""
    if done.returncode:
        return Outcome(None)
    return Outcome(tuple(sorted(set(re.findall(r'"osv": "(GO-[0-9-]+)"', done.stdout)))))


QUESTIONS = (
    Question("Python", ROOT / "requirements" / "dev.lock", ask_pip),
    Question("Slither", ROOT / "requirements" / "slither.lock", ask_pip),
    Question("npm", ROOT / "contracts" / "package-lock.json", ask_npm),
    Question("Geth (Go)", ROOT / "tools" / "geth" / "go.mod", ask_go),
    Question("Kubo (Go)", ROOT / "tools" / "ipfs" / "go.mod", ask_go),
)


def describe(question: Question, outcome: Outcome) -> str:
    """One question with its answer, as a line."""
    place = f"{question.name}: {question.file.relative_to(ROOT)}, {question.count_pins()} packages"
    if outcome.findings is None:
        return f"{place}: no database was reached; pinned on {question.find_date()}."
    return f"{place}: {', '.join(outcome.findings) or 'no known weakness'}."


def main(questions: Sequence[Question] = QUESTIONS) -> int:
    """Ask all; 1 if there is a finding."""
    outcomes = [question.ask(question.file) for question in questions]
    for question, outcome in zip(questions, outcomes, strict=True):
        print(describe(question, outcome))
    return int(any(outcome.findings for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
