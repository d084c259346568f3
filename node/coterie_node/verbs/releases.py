"""Payloads that wait until a site's people let them leave, what has left, and what the privacy log refused."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from coterie_learners.study.document import Study
from coterie_node.errors import ConfigError
from coterie_node.privacy.log import PrivacyLog
from coterie_node.privacy.storage import FolderStorage
from coterie_node.release.approval import ApprovalFolder
from coterie_node.release.budgets import group_populations
from coterie_node.run.study_files import check_permit
from coterie_node.site.folder import SiteFolder
from coterie_node.site.statements.approvals import ActSubject
from coterie_node.verbs.signing import PersonSigner, sign_act_here


def list_releases(folder: SiteFolder) -> list[Mapping[str, Any]]:
    """What waits for a person's yes, with every number: for this site's own people only."""
    return [payload for approvals in _list_folders(folder) for payload in approvals.waiting()]


def approve_release(
    folder: SiteFolder, digest: str, by: str = "", signer: PersonSigner | None = None
) -> Mapping[str, Any]:
    """Let the payload of this digest (its first eight digits or more) leave; ConfigError (CO-F311) if none waits.

    StudyError (CO-S506) after the last day of its study's data permit.
    """
    folders = _list_folders(folder)
    matches = [f for f in folders if any(payload["payload_digest"].startswith(digest) for payload in f.waiting())]
    if matches:
        _check_permits(folder, matches[0].root.name)
        waiting = next(p for p in matches[0].waiting() if p["payload_digest"].startswith(digest))
        sign_act_here(folder, "release", ActSubject(about=waiting["payload_digest"]), signer, by)
    return (matches or folders)[0].approve(digest)


def read_privacy_log(folder: SiteFolder) -> dict[str, Any]:
    """What has left this site by population, how much of it is known, what is lost, and what was refused."""
    log = _open_log(folder)
    populations = [population.as_dict() for population in group_populations(log)]
    return {"populations": populations, "lost": log.list_losses(), "refusals": log.refusals()}


def read_refusals(folder: SiteFolder, study: bytes) -> list[dict[str, str]]:
    """What the privacy log refused of the study with this hash."""
    return _open_log(folder).refusals().get(study.hex(), [])


def allow_refusal(
    folder: SiteFolder, digest: str, reason: str, by: str = "", signer: PersonSigner | None = None
) -> list[Mapping[str, Any]]:
    """Say yes to what the privacy log refused of one study, by the start of its hash; ConfigError (CO-F311) else."""
    log = _open_log(folder)
    matches = [name for name in log.refusals() if len(digest) >= 8 and name.startswith(digest)]
    if len(matches) != 1 or not reason.strip():
        message = f"Nothing was refused of a single study with the hash {digest!r}, or there is no reason"
        raise ConfigError("CO-F311", f"{message}. List refusals with `coterie release log`.")
    study = bytes.fromhex(matches[0]) if len(matches[0]) == 64 else bytes(32)
    _check_permits(folder, matches[0])
    sign_act_here(folder, "allow", ActSubject.of_text(reason.strip(), study), signer, by)
    return list(log.allow(matches[0], reason.strip()))


def _check_permits(folder: SiteFolder, digits: str) -> None:
    """StudyError (CO-S506) if the data permit of a study has ended, by the first digits of its hash."""
    for document in folder.decisions.find_documents(digits):
        check_permit(Study.from_json(document, f"The study {digits[:16]}"), int(time.time()))


def _open_log(folder: SiteFolder) -> PrivacyLog:
    return PrivacyLog(FolderStorage(folder.privacy))


def _list_folders(folder: SiteFolder) -> list[ApprovalFolder]:
    """The folders in which payloads wait: a daemon has one for each study, a process of a run one for its study."""
    return [ApprovalFolder(place) for place in (folder.releases, *sorted(folder.releases.glob("*/")))]
