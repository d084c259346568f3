"""Build the wheel, check it, install it into an empty environment, and use every command outside the repository."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SITES = ("north", "south", "west")
NEEDED = (
    "coterie/py.typed",
    "coterie_node/codes.toml",
    "coterie_node/audit/report/templates/report.html.j2",
    "coterie_chain/ethereum/abi/Catalog.json",
)


def build_wheel(folder: Path) -> Path:
    """The wheel of this tree."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run([str(part) for part in command], check=True)
    return next(folder.glob("coterie-*.whl"))


def check_content(wheel: Path) -> None:
    """SystemExit for a file that the wheel lacks, or a test that it carries."""
    names = zipfile.ZipFile(wheel).namelist()
    missing = [name for name in NEEDED if name not in names]
    extra = [name for name in names if name.startswith("tests/")]
    if missing or extra:
        raise SystemExit(f"The wheel lacks {missing} and carries {extra}.")


def read_pins() -> list[str]:
    """The pinned versions with their markers; the hashes are left out, which constraints do not take."""
    lines = (ROOT / "requirements" / "dev.lock").read_text(encoding="utf-8").splitlines()
    return [line.rstrip(" \\") for line in lines if "==" in line and not line.startswith((" ", "#"))]


def make_environment(folder: Path, *packages: str | Path) -> Path:
    """A new environment with these packages, at the pinned versions where there are any; the folder of its programs."""
    venv.create(folder, with_pip=True)
    pins = folder / "pins.txt"
    pins.write_text("\n".join(read_pins()), encoding="utf-8")
    install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "-c", pins, *packages]
    subprocess.run([str(part) for part in install], check=True)
    return folder / "bin"


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


def main() -> None:
    """Build, look inside, install, use."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build_wheel(folder)
        check_content(wheel)
        twine = make_environment(folder / "twine", "twine") / "twine"
        subprocess.run([twine, "check", "--strict", wheel], check=True)
        commands = check_commands(make_environment(folder / "env", wheel), folder)
        size = wheel.stat().st_size // 1024
        print(f"{wheel.name}: {size} KiB; {commands} commands run outside the repository, and a study is fitted.")


if __name__ == "__main__":
    main()
