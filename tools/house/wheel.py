"""Build the wheel, install it into an empty environment, and use it outside the repository."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
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


def check_commands(wheel: Path, folder: Path) -> None:
    """Install the wheel with its dependencies into a new environment, and run commands there."""
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    constraint = ROOT / "requirements" / "dev.lock"
    pins = [
        line.split()[0] for line in constraint.read_text().splitlines() if "==" in line and not line.startswith(" ")
    ]
    (folder / "pins.txt").write_text("\n".join(pins))
    install = [python, "-m", "pip", "install", "--quiet", "-c", folder / "pins.txt", wheel]
    subprocess.run([str(part) for part in install], check=True)
    coterie = str(folder / "env" / "bin" / "coterie")
    for arguments in (["version"], ["--help"], ["explain", "CO-F342"], ["study", "--help"], ["audit", "--help"]):
        subprocess.run([coterie, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Build, look inside, install, use."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build_wheel(folder)
        check_content(wheel)
        check_commands(wheel, folder)
        print(f"{wheel.name}: {wheel.stat().st_size // 1024} KiB; it installs and runs outside the repository.")


if __name__ == "__main__":
    main()
