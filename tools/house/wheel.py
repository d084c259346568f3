"""Build the wheel, check it, install it into an empty environment, and use every command outside the repository.

Without extras it audits and founds: a bundle of each learner is verified, the keys of a network are made, and rows are
refused with the command that installs what reads them. With the extra `site` a study is fitted.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from environment import ROOT, build_wheel, install, make_environment, weigh
from previous_release import GRADES, list_demos, make_bundle

# What an installation without extras may weigh, and how many packages the sentence about it names. docs/dependencies.md
# says why it is not less.
MAX_INSTALLED_MB, LARGEST = 250, 6
SITES = ("north", "south", "west")
# Rows need the extra `site`: the code of the refusal, and its exit status.
WITHOUT_ROWS = ("CO-F231", 12)
# Encrypted tables are opened by a library that an extra brings.
BUNDLE_EXTRAS = {"secure_cola": "he"}
# Exit status of `audit verify` where the installation cannot check all.
NOT_CHECKED = 26
NEEDED = (
    "coterie/py.typed",
    "coterie_node/codes.toml",
    "coterie_node/audit/report/templates/report.html.j2",
    "coterie_chain/ethereum/abi/Catalog.json",
)


def check_content(wheel: Path) -> None:
    """SystemExit for a file that the wheel lacks, or a test that it carries."""
    names = zipfile.ZipFile(wheel).namelist()
    missing = [name for name in NEEDED if name not in names]
    extra = [name for name in names if name.startswith("tests/")]
    if missing or extra:
        raise SystemExit(f"The wheel lacks {missing} and carries {extra}.")


def list_commands(programs: Path) -> list[list[str]]:
    """The words of every command, as the installed table has them."""
    script = (
        "from coterie_node.cli.table import COMMANDS\n"
        "for name, entry in COMMANDS.items():\n"
        "    print(*[f'{name} {inner}' for inner in getattr(entry, 'commands', ())] or [name], sep='\\n')"
    )
    done = subprocess.run([programs / "python", "-c", script], cwd=programs, check=True, capture_output=True, text=True)
    return [line.split() for line in done.stdout.splitlines()]


def check_commands(programs: Path, folder: Path) -> int:
    """Every command of the installed package shows its help; returns how many commands ran."""
    commands = list_commands(programs)
    for arguments in (
        ["version"],
        ["--version"],
        ["--help"],
        ["explain", "CO-F342"],
        *([*c, "--help"] for c in commands),
    ):
        subprocess.run([programs / "coterie", *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return len(commands)


def check_bundles(programs: Path, folder: Path, wheel: Path) -> list[str]:
    """What `audit verify` says of a bundle of each learner, made by this repository; SystemExit if it does not pass."""
    verdicts = []
    for learner in list_demos(Path(sys.executable).parent):
        bundle = make_bundle(Path(sys.executable).parent, learner, folder)
        done = run(programs, folder, "audit", "verify", bundle)
        extra = BUNDLE_EXTRAS.get(learner)
        if extra is not None and f"coterie[{extra}]" in done.stdout:
            if done.returncode != NOT_CHECKED:
                raise SystemExit(f"{learner} without [{extra}]: exit status {done.returncode}.\n{done.stdout}")
            install(programs, f"{wheel}[{extra}]")
            done = run(programs, folder, "audit", "verify", bundle)
        if done.returncode not in GRADES:
            raise SystemExit(f"{learner}: exit status {done.returncode}.\n{done.stdout}{done.stderr}")
        verdicts.append(f"{learner} {GRADES[done.returncode]}" + (f" with [{extra}]" if extra else ""))
    return verdicts


def check_founding(programs: Path, folder: Path) -> None:
    """A founder makes a node's folder and its keys, and sees in the doctor's table what reading rows needs."""
    for words in (
        ["init", "node", "--site=north", "--chain=http://127.0.0.1:9", "--store=store", "--port=0"],
        ["network", "keys", "node", "--site=north", "--host=127.0.0.1"],
    ):
        subprocess.run([programs / "coterie", *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    table = run(programs, folder, "doctor", "--node=node").stdout
    if "coterie[site]" not in table:
        raise SystemExit(f"The doctor does not say that rows need coterie[site]:\n{table}")


def check_rows(programs: Path, folder: Path, wheel: Path) -> None:
    """A study is refused with a code and the command to run, and is fitted after that command."""
    subprocess.run([programs / "python", ROOT / "examples" / "make_data.py"], cwd=folder, check=True)
    shutil.copy(ROOT / "examples" / "stroke.toml", folder)
    simulate = ["simulate", "stroke.toml", *(f"--data={site}={site}.csv" for site in SITES)]
    done, (code, status) = run(programs, folder, *simulate), WITHOUT_ROWS
    if (done.returncode, "coterie[site]" in done.stderr) != (status, True) or not done.stderr.startswith(code):
        raise SystemExit(f"Without coterie[site], exit status {done.returncode}: {done.stderr}")
    install(programs, f"{wheel}[site]")
    subprocess.run([programs / "coterie", *simulate], cwd=folder, check=True, capture_output=True)


def run(programs: Path, folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """The installed command outside the repository."""
    command = [str(word) for word in (programs / "coterie", *words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def check_weight(environment: Path) -> str:
    """What the installed wheel and its packages weigh, in a sentence; SystemExit if that is more than the limit."""
    sizes = weigh(environment)
    total = sum(sizes.values()) / 1e6
    largest = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in list(sizes.items())[:LARGEST])
    sentence = f"Without extras it installs {total:.0f} MB ({largest})."
    if total > MAX_INSTALLED_MB:
        raise SystemExit(f"{sentence} The limit is {MAX_INSTALLED_MB} MB: make what is new an extra.")
    return sentence


def main() -> None:
    """Build, look inside, install, use."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build_wheel(folder)
        check_content(wheel)
        twine = make_environment(folder / "twine", "twine") / "twine"
        subprocess.run([twine, "check", "--strict", wheel], check=True)
        programs = make_environment(folder / "env", wheel)
        weight = check_weight(folder / "env")
        commands = check_commands(programs, folder)
        verdicts = check_bundles(programs, folder, wheel)
        check_founding(programs, folder)
        check_rows(programs, folder, wheel)
        size = wheel.stat().st_size // 1024
        print(f"{wheel.name}: {size} KiB; {commands} commands run outside the repository.")
        print(f"Bundles verified there: {', '.join(verdicts)}. With coterie[site] a study is fitted.")
        print(weight)


if __name__ == "__main__":
    main()
