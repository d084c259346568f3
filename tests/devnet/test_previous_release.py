"""Daemons of the previous release and of this one in one network: studies complete, and bundles hold both ways."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import pytest
from support.devnet.bed import skip_without_programs
from support.devnet.founding import await_true, run_coterie

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ledger.protocol import State
from coterie_chain.network.programs.service import Service
from coterie_node.audit.verify import verify
from coterie_node.demo.cases import find_case
from coterie_node.demo.run import prepare
from coterie_node.network.devnet import make_settings, start_network, stop_programs
from coterie_node.network.local_nodes import SiteDaemons
from coterie_node.run.study_files import load_study
from coterie_node.site.run_folder import RunFolder

pytestmark = [pytest.mark.devnet, pytest.mark.xdist_group("network"), pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
# The commit that the previous release was built from.
RELEASE, COMMIT = "0.2.0", "58c2c416"
SITES = ("north", "south", "west")
OLD_SITE = "west"
# A learner whose version is the same in both: of another one, sites with both releases run no study together.
LEARNER = "cola"
# Studies of the same rows and model: the gate would keep back sums over almost the same patients.
NAMES = ("first", "second", "third")
LONGEST = 420.0


@dataclass(frozen=True)
class OldRelease:
    """The previous release, installed into a folder of its own beside the packages of this environment."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.folder)}

    def run(self, *words: object) -> str:
        """What one of its commands prints."""
        command = [sys.executable, "-m", "coterie_node", *map(str, words)]
        env = os.environ | self.environment
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=self.folder, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> OldRelease:
    """Release 0.2.0, built from its commit by its own recipe."""
    place = tmp_path_factory.mktemp("previous")
    archive = subprocess.run(["git", "archive", COMMIT], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(place / "tree", filter="data")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(place), str(place / "tree")]
    subprocess.run(wheel, check=True)
    (built,) = place.glob("coterie-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(place / "site"), str(built)], check=True)
    release = OldRelease(place / "site")
    assert release.run("version").strip() == RELEASE
    where = [sys.executable, "-c", "import coterie_node; print(coterie_node.__file__)"]
    env = os.environ | release.environment
    source = subprocess.run(where, env=env, cwd=place, check=True, capture_output=True, text=True).stdout
    assert Path(source.strip()).is_relative_to(place)
    return release


class MixedDaemons(SiteDaemons):
    """The daemons of a network, of which one is of the previous release."""

    def __init__(self, place: RunFolder, old: OldRelease) -> None:
        super().__init__(place)
        self._old = old

    def _service(self, root: Path) -> Service:
        service = super()._service(root)
        if root.name != OLD_SITE:
            return service
        return replace(service, environment={**service.environment, **self._old.environment})


def act(place: RunFolder, old: OldRelease, site: str, *words: object) -> None:
    """Run a command as a site's people do, by the release that the site has."""
    here = [str(word) for word in (*words, "--node", place.site_root(site).absolute())]
    _ = old.run(*here) if site == OLD_SITE else run_coterie(*here)


def decide(place: RunFolder, old: OldRelease, name: str, proposer: str) -> None:
    """Propose the demo's study under another name at one site, and approve it at the others."""
    document = place.root.absolute() / f"{name}.toml"
    document.write_text(
        re.sub(r"^name = .*$", f'name = "{name}"', place.study.read_text(), count=1, flags=re.MULTILINE)
    )
    assert load_study(document).name == name
    with place.reader() as ledger:
        number = len(ledger.studies()) + 1
        act(place, old, proposer, "study", "propose", document)
        await_true(lambda: len(ledger.studies()) == number, f"the proposal of {name}")
    for site in SITES:
        if site != proposer:
            await_proposal(place, site, number)
            act(place, old, site, "study", "approve", number)


def await_proposal(place: RunFolder, site: str, number: int) -> None:
    """Wait until a site sees a study in a block that counts: its chain node may have the block later than others."""
    with EthereumLedger(place.network(site), None, confirmations=place.chain().confirmations) as ledger:
        await_true(lambda: number in ledger.studies(), f"the proposal {number} at {site}")


def await_studies(place: RunFolder, states: Sequence[State]) -> None:
    """Wait until the studies are in these states."""
    deadline, now = time.monotonic() + LONGEST, list[State]()
    with place.reader() as ledger:
        while time.monotonic() < deadline:
            now = [ledger.view(number).state for number in ledger.studies()]
            if now == states:
                return
            time.sleep(1.0)
    raise AssertionError(f"the studies stayed at {now}")


@pytest.fixture(scope="module")
def place(old: OldRelease, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFolder]:
    """A network whose daemons, one of them of the previous release, have completed three studies."""
    skip_without_programs()
    place = RunFolder(tmp_path_factory.mktemp("mixed") / "net")
    place.root.mkdir()
    prepare(place, find_case(LEARNER), SITES)
    try:
        start_network(place, SITES, make_settings("clique", "kubo"))
        daemons = MixedDaemons(place, old)
        daemons.start()
        for name, proposer in zip(NAMES, SITES, strict=True):
            decide(place, old, name, proposer)
        await_studies(place, [State.COMPLETED] * len(NAMES))
        # A daemon writes its result some blocks later, when it is final.
        results = [place.site_root(site) / "results" / f"{k}.json" for site in SITES for k in range(1, len(NAMES) + 1)]
        await_true(lambda: all(path.exists() for path in results), "the results of all sites")
        daemons.stop()
        yield place
    finally:
        stop_programs(place)


def test_studies_of_mixed_releases_complete_and_replay_in_both(place: RunFolder, old: OldRelease) -> None:
    for number in range(1, len(NAMES) + 1):
        assert "PASS" in old.run("audit", "replay", number, "--at", place.root)
        assert place.site_root(OLD_SITE).joinpath("results", f"{number}.json").exists()


def test_a_bundle_of_each_release_verifies_in_the_other(place: RunFolder, old: OldRelease, tmp_path: Path) -> None:
    bundle = tmp_path / "then.zip"
    old.run("audit", "export", 1, bundle, "--at", place.root)
    outcome = verify(bundle, network=place.network())
    assert (outcome.verdict.verdict, outcome.verdict.grade) == ("PASS", "identical")
    now = [sys.executable, "-m", "coterie_node", "audit", "export", "2", tmp_path / "now.zip", "--at", place.root]
    subprocess.run([str(word) for word in now], check=True)
    assert "PASS" in old.run("audit", "verify", tmp_path / "now.zip")
