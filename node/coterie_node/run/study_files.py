"""Study files, and what of a study goes on the ledger."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import from_json

from coterie_chain.errors import BlobCorrupt, BlobMissing
from coterie_chain.ledger.protocol import Silence, StudyView, Terms
from coterie_chain.store.cid import RAW, Cid
from coterie_chain.store.protocol import BlobStore
from coterie_learners.core.registry import check_choice, complete_study, learner_of
from coterie_learners.errors import StudyError
from coterie_learners.study.document import MAX_DOCUMENT, Study
from coterie_node.data.files.bounded_file import read_bounded
from coterie_node.errors import AuditFailed, TermsMismatch

SILENCE = {"wait": Silence.WAIT, "exclude": Silence.EXCLUDE, "abort": Silence.ABORT}


def load_study(path: Path) -> Study:
    """A study from a TOML file that people wrote, or from its canonical JSON; options and version completed."""
    if path.suffix == ".json":
        return study_of(_content(path), str(path))
    return complete_study(read_plain(path))


def read_plain(path: Path) -> Study:
    """A study as it is written, whether or not its learner can run it."""
    content = _content(path)
    if path.suffix == ".json":
        return Study.from_json(content, str(path))
    try:
        return Study.from_toml(content.decode(), str(path))
    except UnicodeDecodeError:
        raise StudyError("CO-S101", f"{path} is not UTF-8 text. Save the file as UTF-8.") from None


def _content(path: Path) -> bytes:
    try:
        return read_bounded(path, MAX_DOCUMENT)
    except OSError as error:
        raise StudyError(
            "CO-S104", f"The study file {path} cannot be read: {error.strerror}. Check the path and its rights."
        ) from None
    except ValueError as error:
        raise StudyError("CO-S104", f"The study file {path} cannot be read: {error}. Shorten it.") from None


def study_of(document: bytes, where: str) -> Study:
    """A study from its canonical JSON, for this installation's learners."""
    study = Study.from_json(document, where)
    check_choice(study)
    return study


def check_permit(study: Study, now: int) -> None:
    """StudyError (CO-S506) after the last day of the study's data permit; `now` in seconds since 1970."""
    last = study.registration.last_day
    if last is not None and now // 86400 > last:
        permit = f"The data permit {study.registration.data_permit!a} of study {study.name!r}"
        message = f"{permit} expired on {study.registration.permit_expires}: no rows are used any more"
        raise StudyError("CO-S506", f"{message}. Amend the study with a new permit: coterie study amend.")


def amend_study(study: Study, predecessor: bytes, reason: str) -> Study:
    """A study that says that it replaces the one with the hash `predecessor`, and why; StudyError for a bad reason."""
    plain = from_json(study.document)
    plain["registration"] = study.registration.model_dump() | {
        "amends": predecessor.hex(),
        "amendment_reason": reason.strip(),
    }
    try:
        return Study.model_validate(plain)
    except ValidationError:
        message = "The reason of an amendment is one line of 1 to 200 characters"
        raise StudyError("CO-S102", f"{message}. Give another --reason.") from None


def read_predecessor(study: Study, blobs: BlobStore) -> Study | None:
    """The study that this one amends; None if it amends none, or if no store within reach has it."""
    if not study.registration.amends:
        return None
    try:
        document = blobs.get(str(Cid(1, RAW, bytes.fromhex(study.registration.amends))), MAX_DOCUMENT)
        return Study.from_json(document, "The amended study")
    except (BlobMissing, BlobCorrupt, StudyError):
        return None


def study_on_ledger(view: StudyView, blobs: BlobStore) -> Study:
    """The study that the ledger names by hash, from the store: its canonical JSON is one raw block of that digest."""
    study = document_on_ledger(view, blobs)
    check_choice(study)
    return study


def document_on_ledger(view: StudyView, blobs: BlobStore) -> Study:
    """The same as it is written, whether or not its learner is installed in the version that it pins."""
    document = blobs.get(str(Cid(1, RAW, view.terms.hash)), MAX_DOCUMENT)
    study = Study.from_json(document, f"The document of study {view.id}")
    if study.hash != view.terms.hash:
        raise AuditFailed(
            "CO-A101",
            f"The document of study {view.id} has another hash than the ledger."
            " Do not rely on this study. Ask its proposer.",
        )
    return study


def count_least_sites(study: Study) -> int:
    """With fewer sites the study does not go on: three where only sums over sites may exist, else one."""
    from coterie_learners.core.masked_sum import MIN_PARTIES

    masked = any(step.protection == "masked" for step in learner_of(study).discloses(study).from_rows)
    return min(MIN_PARTIES, len(study.sites)) if masked else 1


def check_silence_rule(study: Study) -> None:
    """StudyError (CO-S306) for a study that excludes silent sites, and cannot go on without any of its sites."""
    least = count_least_sites(study)
    if study.ledger.silent_site == "exclude" and least >= len(study.sites) > 1:
        message = f'silent_site = "exclude", but masked sums need {least} sites and the study has {len(study.sites)}'
        cause = "The first silent site would end the study"
        raise StudyError("CO-S306", f'{message}. {cause}. Choose "wait" or "abort", add a site, or do not mask.')


def study_terms(study: Study) -> Terms:
    """The terms of a study in the contract: its hash, its sites in turn order, its schedule and its deadlines.

    Nobody is excluded below the number of sites with which the study can go on.
    """
    schedule = learner_of(study).schedule(study)
    return Terms(
        hash=study.hash,
        sites=study.sites,
        opening=schedule.opening,
        loop=schedule.loop,
        closing=schedule.closing,
        max_rounds=schedule.max_rounds,
        timeout=study.ledger.step_seconds,
        silence=SILENCE[study.ledger.silent_site],
        least=count_least_sites(study),
    )


def differing_terms(terms: Terms, study: Study) -> tuple[str, ...]:
    """The ledger's terms of a study that differ from its document, in words; empty if they are the same."""
    wanted = study_terms(study)
    pairs = ((field.name, getattr(terms, field.name), getattr(wanted, field.name)) for field in fields(Terms))
    return tuple(
        f"{name} {_describe_term(value)} instead of {_describe_term(want)}"
        for name, value, want in pairs
        if value != want
    )


def check_terms(view: StudyView, study: Study) -> None:
    """TermsMismatch if a member proposed a document with other sites, schedule, deadline or silence rule than its own.

    With other sites the sums that a site sends would hide among fewer of them than its people approved.
    """
    differences = differing_terms(view.terms, study)
    if differences:
        message = f"Study {view.id} on the ledger has other terms than its document: {'; '.join(differences)}"
        who = f" {view.proposer}, which proposed it," if view.proposer else " Who proposed it"
        raise TermsMismatch("CO-R401", f"{message}.{who} chose them. This site takes no part; decline the study.")


def _describe_term(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()[:16]
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return value.name.lower() if isinstance(value, Silence) else str(value)
