"""Build the wheel, check it, install it into an empty environment, and use every command outside the repository."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

from environment import ROOT, build_wheel, make_environment, weigh

# What an installation without extras may weigh, and how many packages the sentence about it names. docs/dependencies.md
# says why it is not less.
MAX_INSTALLED_MB, LARGEST = 480, 6
SITES = ("north", "south", "west")
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
    """Every command of the installed package shows its help, and a study is fitted; returns how many commands ran."""
    commands = list_commands(programs)
    for arguments in (
        ["version"],
        ["--version"],
        ["--help"],
        ["explain", "CO-F342"],
        *([*c, "--help"] for c in commands),
    ):
        subprocess.run([programs / "coterie", *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([programs / "python", ROOT / "examples" / "make_data.py"], cwd=folder, check=True)
    shutil.copy(ROOT / "examples" / "stroke.toml", folder)
    simulate = ["simulate", "stroke.toml", *(f"--data={site}={site}.csv" for site in SITES)]
    subprocess.run([programs / "coterie", *simulate], cwd=folder, check=True, capture_output=True)
    return len(commands)


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
        size = wheel.stat().st_size // 1024
        print(f"{wheel.name}: {size} KiB; {commands} commands run outside the repository, and a study is fitted.")
        print(weight)


if __name__ == "__main__":
    main()
