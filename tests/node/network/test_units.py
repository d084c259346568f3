"""The systemd units of a site: systemd takes them, they are shut off from the machine, and secrets go past the user."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support.node.founded_sites import FoundedSites

from coterie_chain.errors import KeyFault
from coterie_chain.keys.private_files import CREDENTIALS
from coterie_node.network.systemd_units import render_units

# `systemd-analyze security` counts exposure from 0 to 10; times ten here.
MOST_EXPOSED = 30


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A site's units as files, with programs that are there."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in ("COTERIE_GETH", "COTERIE_IPFS"):
        monkeypatch.setenv(name, str(program))
    root = FoundedSites(tmp_path).root / "north"
    folder = tmp_path / "units"
    folder.mkdir()
    for name, text in render_units(root).items():
        (folder / name).write_text(text)
    return sorted(folder.iterdir())


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="Debian's package systemd is not installed")
def test_systemd_takes_the_units_and_rates_them_as_little_exposed(units: list[Path]) -> None:
    verify = ["systemd-analyze", "verify", "--man=no", *map(str, units)]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "coterie" in line]) == (0, [])
    rate = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", *map(str, units)]
    rated = subprocess.run(rate, capture_output=True, text=True, timeout=60, check=False)
    assert rated.returncode == 0, rated.stdout[-2000:]


def test_secrets_are_handed_over_by_systemd_and_no_path_of_theirs_is_in_a_command(units: list[Path]) -> None:
    texts = {path.name: path.read_text() for path in units}
    root = units[0].parents[1] / "north"
    assert f"LoadCredential=passphrase:{root}/passphrase\n" in texts["coterie.service"]
    assert f"LoadCredential=sealer.passphrase:{root}/geth/sealer.passphrase\n" in texts["coterie-geth.service"]
    start = next(line for line in texts["coterie-geth.service"].splitlines() if line.startswith("ExecStart="))
    assert "--password %d/sealer.passphrase" in start
    assert "LoadCredential" not in texts["coterie-kubo.service"]


def test_a_passphrase_that_systemd_hands_over_opens_the_keys_whatever_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = FoundedSites(tmp_path)
    home = sites.home("north")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    home.passphrase.rename(credentials / "passphrase")
    (credentials / "passphrase").chmod(0o440)  # an access list of systemd's shows as the group's right
    with pytest.raises(KeyFault):
        home.load_keys()
    monkeypatch.setenv(CREDENTIALS, str(credentials))
    assert home.load_keys().address == sites.keys("north").address
