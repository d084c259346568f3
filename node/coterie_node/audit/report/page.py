"""The audit report: one HTML page that needs no network, or the same page as PDF.

Verdict first, then who agreed to what, what happened, what came out, and what all of it does not prove. Every value
from outside goes through the template's escaping; the page has no script and forbids itself to load anything.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from coterie_chain.errors import BlobCorrupt, BlobMissing, LedgerMismatch
from coterie_chain.ledger.protocol import Event, Ledger, Record, SiteEntry, StudyView, get_study_number
from coterie_chain.store.protocol import BlobStore
from coterie_learners.core.disclosure import Ruling
from coterie_learners.core.fit import Fit, Row, coefficient_table, count_warnings
from coterie_learners.core.registry import learner_of
from coterie_learners.errors import LearnerError
from coterie_learners.study.days import write_day
from coterie_learners.study.document import Study
from coterie_learners.study.model_card import make_model_card
from coterie_learners.study.preparation.words import describe_preparation
from coterie_node.audit.approvals.signatures import SignedJoin
from coterie_node.audit.history import HistoryEntry, describe_ruling, to_history_entry
from coterie_node.audit.influence import Screen, screen_steps
from coterie_node.audit.printed.characteristics import print_characteristics
from coterie_node.audit.printed.evaluation import find_evaluation, print_evaluation, print_ranges
from coterie_node.audit.printed.printed_table import PrintedTable
from coterie_node.audit.replay import INTACT, Replay, Verdict
from coterie_node.audit.report.evaluation_figures import Panel, draw_evaluation
from coterie_node.audit.report.figures import ConvergenceCurve, Forest, draw_convergence, draw_forest
from coterie_node.audit.report.model_words import describe_model, describe_patients
from coterie_node.audit.report.registered import RegisteredItem, compare_registration
from coterie_node.audit.report.survival_figure import draw_survival, list_causes
from coterie_node.audit.report.tripod import TripodItem, items_to_json, list_items, print_tripod
from coterie_node.audit.result import VALIDATION, finite, limits, numbers, soundness_of
from coterie_node.data.cohort.flow import Flow, draw_flow
from coterie_node.data.findings import printable
from coterie_node.errors import AuditFailed, ConfigError
from coterie_node.run.follower import Progress
from coterie_node.run.recorded_steps import steps
from coterie_node.run.study_files import read_predecessor
from coterie_node.site.statements.ended_studies import RecordedInspection, find_supersession, list_inspections

ODD = frozenset(
    {"ServerSkipped", "ExclusionVoted", "SiteExcluded", "Disputed", "StudyPaused", "ResumeVoted", "StudyResumed"}
    | {"StudyAborted", "KeyChanged", "SiteRevoked", "RecoveryVoted", "RevocationVoted"}
    | {"SiteLeft", "StepReopened", "UnavailabilityVoted", "AbortVoted", "StudyDeclined"}
    | {"SupersessionVoted", "StudySuperseded"}
)
# At most so many steps are listed, and the others only counted; `coterie audit history` has them all.
MOST_STEPS = 400
DECIMALS = 6
# Counts of rows in a report are multiples of this, or of the study's floor if that is more.
BAND = 5
# The treatment of rows with missing values, by the study's rule.
_MISSING = {"drop": "left out", "refuse": "not accepted", "keep": "kept, and missing values counted"}

NOT_PROVED = (
    "That a site's sums come from true and complete rows: only that site can compute them again. Its commitment to a "
    "snapshot of its rows lets an inspector at the site check it (coterie audit recompute).",
    "That rows which a site left out were left out rightly; counts are the site's own word, and so are the rulings of "
    "its release gate.",
    "That sites did not agree with each other outside the ledger, or read their data before they approved.",
    "The author of this page: it is not signed, and anybody can change its words. Trust the command that repeats it.",
    "Anything about causes: the model describes associations in the sites' data.",
)


@dataclass(frozen=True)
class ReportSource:
    """The source of a study: what its proof needs, in sentences, and the command that repeats the check.

    `signed`: which persons approved at each site. `row_warnings` and `flows`: what the site that makes the report knows
    about its own rows; an auditor has none.
    """

    trust: tuple[str, ...]
    command: str
    certificate: Mapping[str, Any] | None = None
    row_warnings: tuple[str, ...] = ()
    flows: Mapping[str, Flow] = field(default_factory=dict)
    signed: tuple[SignedJoin, ...] = ()


@dataclass(frozen=True)
class AuditReport:
    """Everything that the page shows."""

    replay: Replay
    source: ReportSource
    made: str
    view: StudyView | None = None
    sites: tuple[SiteEntry, ...] = ()
    entries: tuple[Record | Event, ...] = ()
    progress: tuple[Progress, ...] = ()
    screen: Screen | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    predecessor: Study | None = None

    @property
    def verdict(self) -> Verdict:
        """PASS, RECORD INTACT, NOT CHECKED or FAIL."""
        return self.replay.verdict

    @property
    def study(self) -> Study | None:
        """The study, if it could be read."""
        return self.replay.study

    @property
    def fit(self) -> Fit | None:
        """The fit, if the study has one."""
        fit = self.replay.fit
        return fit if isinstance(fit, Fit) else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What speaks against the model, and against the rows of the site that makes the report."""
        return () if self.fit is None else (*self.fit.warnings, *self.source.row_warnings)

    @property
    def soundness(self) -> str:
        """How many warnings there are, in words."""
        return count_warnings(self.warnings)

    @property
    def records(self) -> list[Record]:
        """The study's records."""
        return [e for e in self.entries if isinstance(e, Record)]

    @property
    def approvals(self) -> list[HistoryEntry]:
        """The sites that proposed and joined, when, and the rows to which each committed."""
        names = ("StudyProposed", "StudyJoined", "StudyStarted", "StudyCompleted")
        return [to_history_entry(e) for e in self.entries if isinstance(e, Event) and e.name in names]

    @property
    def signatures(self) -> list[str]:
        """The persons who approved at each site, when and with what meaning, in sentences."""
        return [line for join in self.source.signed for line in join.sentences]

    @property
    def registered(self) -> list[RegisteredItem]:
        """What was registered before the study began, against what was done."""
        contributors = self.replay.contributors
        return (
            [] if self.study is None else compare_registration(self.study, self.predecessor, self.records, contributors)
        )

    @property
    def anomalies(self) -> list[HistoryEntry]:
        """Every event that interrupted the study."""
        return [to_history_entry(e) for e in self.entries if isinstance(e, Event) and e.name in ODD]

    @property
    def supersession(self) -> str:
        """A sentence that the result is superseded, by which study and why; empty if it is not."""
        if self.view is None or not self.view.superseded:
            return ""
        return next((remark for remark in self.replay.remarks if "is superseded" in remark), self._state_supersession())

    def _state_supersession(self) -> str:
        """The supersession without the text of its reason: the record of this study does not hold."""
        number = 0 if self.view is None else self.view.id
        supersession = find_supersession(self.entries, number)
        return "" if supersession is None else supersession.sentence

    @property
    def inspections(self) -> list[RecordedInspection]:
        """Which sites computed their own posts again from their rows, when, and what came out."""
        return [] if self.view is None else list_inspections(self.entries, self.view.id)

    @property
    def uninspected(self) -> list[str]:
        """The sites that have signed no inspection."""
        inspected = {inspection.site for inspection in self.inspections}
        return [] if self.view is None else [site for site in self.view.terms.sites if site not in inspected]

    @cached_property
    def superseded(self) -> list[Record]:
        """Records of attempts that a skip or an exclusion left behind."""
        last = {r.post.position: r.post.attempt for r in sorted(self.records, key=lambda r: r.post.attempt)}
        return [r for r in self.records if r.post.attempt < last[r.post.position]]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The records as rows of the step table, each with what the replay did with it."""
        by_position = {p.position: p for p in self.progress}
        superseded_keys = {(r.site, r.seq) for r in self.superseded}
        return [
            {
                "line": to_history_entry(r),
                "topic": by_position[r.post.position].topic if r.post.position in by_position else "",
                "checked": _describe_check(r, (r.site, r.seq) in superseded_keys, by_position.get(r.post.position)),
            }
            for r in self.records
        ]

    @property
    def turns(self) -> list[dict[str, Any]]:
        """Per site: records, bytes, turns served, turns passed over."""
        skipped = Counter(
            str(dict(e.details)["server"]) for e in self.entries if isinstance(e, Event) and e.name == "ServerSkipped"
        )
        served = Counter(r.site for r in self.records if r.kind == "server")
        posts = Counter(r.site for r in self.records)
        size: Counter[str] = Counter()
        for record in self.records:
            size[record.site] += record.post.size
        names = self.view.terms.sites if self.view else ()
        return [
            {"site": n, "records": posts[n], "bytes": size[n], "served": served[n], "skipped": skipped[n]}
            for n in names
        ]

    @property
    def rulings(self) -> list[dict[str, Any]]:
        """The number of payloads by site and ruling of the release gate."""
        own = [r for r in self.records if r.kind != "server"]
        counts = Counter((r.site, describe_ruling(r.post.verdict).rsplit(" ", 1)[0] or "not judged") for r in own)
        return [{"site": site, "ruling": ruling, "count": count} for (site, ruling), count in sorted(counts.items())]

    @property
    def refused(self) -> bool:
        """Whether a payload is on record although its site's gate refused it; no honest node posts such a payload."""
        return any(r.post.verdict[0] == Ruling.REFUSED for r in self.records)

    @property
    def coefficients(self) -> list[dict[str, Any]]:
        """The coefficient table, of several models with the model's name in each line."""
        return [
            ({"model": name} if name else {}) | row.as_dict()
            for name, fit in self.models.items()
            for row in coefficient_table(fit)
        ]

    @property
    def models(self) -> dict[str, Fit]:
        """The fits by the name of their model; that of a study of one model has none."""
        return {} if self.fit is None else dict(self.fit.models) or {"": self.fit}

    def list_rows(self, fit: Fit) -> list[dict[str, Any]]:
        """The coefficient table of a model with the ratios and their intervals in words."""
        return [row.as_dict() | {"ratio": _ratio(row, fit.ratio)} for row in coefficient_table(fit)]

    @property
    def characteristics(self) -> PrintedTable | None:
        """The table of characteristics, where that is the result."""
        table = None if self.fit is None else self.fit.details.get("table")
        return None if table is None else print_characteristics(table)

    @property
    def curves(self) -> str:
        """Survival curves as SVG, where they are the result; empty elsewhere."""
        details = None if self.fit is None else self.fit.details.get("survival")
        return draw_survival(details) if details else ""

    @property
    def incidences(self) -> dict[str, str]:
        """The cumulative incidence of each competing cause as SVG, where curves are the result."""
        details = {} if self.fit is None else self.fit.details.get("survival", {})
        return {cause: draw_survival(details, cause) for cause in list_causes(details)}

    @property
    def evaluation(self) -> PrintedTable | None:
        """The measures of the evaluated model by group of patients, if there are any."""
        found = None if self.fit is None else find_evaluation(self.fit.details)
        return None if found is None else print_evaluation(found)

    @property
    def ranges(self) -> PrintedTable | None:
        """The calibration table of all patients."""
        found = None if self.fit is None else find_evaluation(self.fit.details)
        return None if found is None else print_ranges(found["groups"][0])

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The figures of the evaluation."""
        found = None if self.fit is None else find_evaluation(self.fit.details)
        return () if found is None else draw_evaluation(found)

    @property
    def validates(self) -> bool:
        """Whether the study evaluates a given model instead of fitting one."""
        return self.fit is not None and self.fit.family == VALIDATION

    @property
    def tripod(self) -> tuple[TripodItem, ...]:
        """The items of TRIPOD+AI that the record answers."""
        return () if self.fit is None or self.study is None else list_items(self.study, self.fit)

    @cached_property
    def forest(self) -> Forest | None:
        """The forest plot."""
        return (
            None if self.fit is None else draw_forest(self.fit, None if self.screen is None else self.screen.comparison)
        )

    @cached_property
    def convergence(self) -> ConvergenceCurve | None:
        """The convergence plot."""
        return draw_convergence([p.figures for p in self.progress if p.kind == "server"])

    @property
    def certificate(self) -> str:
        """What the certificate beside the study says, from its numbers alone; empty if it is another study's."""
        certificate = self.source.certificate or {}
        rows, gap = certificate.get("rows"), certificate.get("max_in_std_errors")
        same = self.study is not None and certificate.get("study") == self.study.hash.hex()
        if not (same and isinstance(rows, int) and isinstance(gap, float)):
            return ""
        return f"On {rows} rows of synthetic data the two are said to differ by at most {gap:.1e} standard errors."

    @property
    def disclosure(self) -> dict[str, tuple[str, ...]]:
        """What the study discloses, in words, as its learner says it, or why nobody can say it here."""
        if self.study is None:
            return {}
        try:
            return learner_of(self.study).discloses(self.study).paragraphs
        except LearnerError as error:
            return {"unknown": (f"{error.code}: {error.message}",)}

    @property
    def flows(self) -> dict[str, str]:
        """The flow of rows at each site that is known here, as SVG with counts banded to the study's floor."""
        floor = max(BAND, 0 if self.study is None else self.study.disclosure.cell)
        return {site: draw_flow(flow, floor) for site, flow in self.source.flows.items()}

    @property
    def methods(self) -> str:
        """A paragraph for a paper."""
        return methods(self) if self.study is not None and self.view is not None else ""

    def html(self) -> str:
        """The page."""
        return (
            make_environment()
            .get_template("report.html.j2")
            .render(report=self, not_proved=NOT_PROVED, most=MOST_STEPS)
        )

    @property
    def result(self) -> dict[str, Any] | None:
        """The numbers, the warnings and the model card; None without a fit."""
        if self.fit is None or self.study is None:
            return None
        document = numbers(self.fit, self.replay.contributors) | {"soundness": soundness_of(self.warnings)}
        return dict(finite({**document, "model": make_model_card(self.study)}))

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys: the verdict and what the tables hold."""
        return {
            **self.verdict.as_dict(),
            "claim": self.verdict.claim,
            "made": self.made,
            "trust": list(self.source.trust),
            "command": self.source.command,
            "turns": self.turns,
            "gate": self.rulings,
            "anomalies": [line.as_dict() for line in self.anomalies],
            "registered": [asdict(item) for item in self.registered],
            "persons": [join.as_dict() for join in self.source.signed],
            "superseded": self.supersession,
            "inspections": [inspection.as_dict() for inspection in self.inspections],
            "uninspected": self.uninspected,
            "terms": self.coefficients,
            "result": self.result,
            "screen": None if self.screen is None else self.screen.as_dict(),
            "discloses": self.disclosure,
            "methods": self.methods,
            "tripod": items_to_json(self.tripod),
        }


def make_report(
    ledger: Ledger,
    blobs: BlobStore,
    number: int,
    outcome: Replay,
    progress: Sequence[Progress],
    source: ReportSource,
    now: datetime,
) -> AuditReport:
    """The report of a study that was replayed; what could not be read is left out of it."""
    return AuditReport(
        outcome,
        source,
        now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        ledger.view(number),
        ledger.sites(),
        tuple(e for e in ledger.history() if get_study_number(e) in (0, number)),
        tuple(progress),
        _screen_study(ledger, blobs, number, outcome),
        versions(),
        None if outcome.study is None else read_predecessor(outcome.study, blobs),
    )


def report_failure(outcome: Replay, source: ReportSource, now: datetime) -> AuditReport:
    """The report of a study or bundle that could not be read."""
    return AuditReport(outcome, source, now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), versions=versions())


def versions() -> dict[str, str]:
    """The versions with which the verdict was computed."""
    return {"coterie": version("coterie"), "Python": platform.python_version(), "numpy": version("numpy")}


def write_report(report: AuditReport, path: Path) -> None:
    """Write the report to a file that ends in .html, .pdf or .json; one in .md has the TRIPOD+AI table alone."""
    kinds = {".html": _html, ".pdf": _pdf, ".json": _json, ".md": _markdown}
    if path.suffix not in kinds:
        raise ConfigError(
            "CO-F308", f"A report has no format for {path.name!r}. End its name with .html, .pdf, .json or .md."
        )
    content = kinds[path.suffix](report)
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ConfigError(
            "CO-F205",
            f"The report {path} cannot be written: {error.strerror or error}."
            " Check the free space and the rights of the folder.",
        ) from None


def _html(report: AuditReport) -> bytes:
    return report.html().encode()


def _markdown(report: AuditReport) -> bytes:
    return (print_tripod(report.tripod).markdown() + "\n").encode()


def _json(report: AuditReport) -> bytes:
    return (json.dumps(report.as_dict(), indent=2) + "\n").encode()


def _pdf(report: AuditReport) -> bytes:
    try:
        from weasyprint import HTML  # the extra `report`; most readers print the page from their browser
    except (ImportError, OSError) as error:
        message = f"PDF needs the extra `report` (WeasyPrint) and its library Pango, which is missing here ({error})"
        raise ConfigError("CO-F309", f"{message}. Install them, or write .html and print it from a browser.") from None
    content: bytes = HTML(string=report.html(), url_fetcher=_refuse_url).write_pdf()
    return content


def _refuse_url(url: str, *_: Any, **__: Any) -> Any:
    raise ValueError(f"the report loads nothing, and was asked for {url[:60]!r}")


def _screen_study(ledger: Ledger, blobs: BlobStore, number: int, outcome: Replay) -> Screen | None:
    """The comparison of the sites, or why it failed; None where the record is not intact, so that nothing counts."""
    if outcome.study is None or not outcome.verdict.intact:
        return None
    try:
        return screen_steps(outcome.study, steps(ledger, blobs, number, outcome.study))
    except (LearnerError, LedgerMismatch, BlobCorrupt, BlobMissing, AuditFailed) as error:
        reason = f"The comparison of the sites failed ({error.code}): {error.message}"
        return Screen(outcome.study.name, None, (), (reason,))


def _describe_check(record: Record, superseded: bool, progress: Progress | None) -> str:
    """What the replay did with a record, and no more."""
    if superseded:
        return "bytes only: superseded"
    if progress is None:
        return "not reached"
    if progress.concludes:
        return "nothing to read: it ends the study"
    if record.site in progress.sealed:
        return "bytes only: sealed to others"
    if record.kind != "server":
        return "form and binding"
    return "recomputed, equal" if progress.recomputed else "form and binding; its inputs are sealed to others"


def methods(report: AuditReport) -> str:
    """A paragraph for the methods section of a paper, with the numbers that identify this analysis."""
    study, view, fit = report.study, report.view, report.fit
    assert study is not None
    assert view is not None
    model, patients = describe_model(study, fit), describe_patients(fit)
    if study.models:
        model = f"set of {len(study.models)} models in shared rounds by {study.learner.name.upper()}"
    contributors = report.replay.contributors or view.parties
    rounds = "" if fit is None else f" The fit took {fit.rounds} round{'s' * (fit.rounds != 1)}."
    fits = fit is None or ("table" not in fit.details and not report.validates)
    verb, what, rounds = ("fitted", "model", rounds) if fits else ("made", "formula of the table", "")
    formula = f"The {what} was {study.formula}"
    if study.models:
        formula = "All models use the same rows: those that have the columns of all models"
    verb = "made" if report.validates else verb
    return (
        f"We {verb} a {model}{patients} at {_describe_sites(contributors, study)} with Coterie "
        f"{report.versions.get('coterie', '')} "
        f"(learner {study.learner.name} {study.learner.version}); {_describe_disclosure(study)}. "
        f"{formula}; rows with missing values were {_MISSING[study.rows.missing]}.{describe_preparation(study)} "
        "All sites "
        f"approved the protocol (SHA-256 {study.hash.hex()}) before the first step, and each step was recorded on a "
        f"shared ledger as study {view.id}.{rounds}{_methods_of_models(report)}{_describe_evaluation(fit)} "
        f"{_describe_replay(report.verdict)}"
    )


def _describe_evaluation(fit: Fit | None) -> str:
    """How the model was evaluated, in two sentences; nothing without an evaluation."""
    found = None if fit is None else find_evaluation(fit.details)
    if found is None:
        return ""
    group, share = found["groups"][0], found["held_out"]
    whose = f" on {100 * share:g} % of the patients, chosen by a keyed hash," if share else ""
    if "where" in found:
        whose = f" on rows that the fit has not seen, those that fulfil `{found['where']}`,"
    by = f" and of {len(found['groups']) - 1} groups" if len(found["groups"]) > 1 else ""
    return (
        f" The model was evaluated{whose} from counts on a grid of {group['bins']} ranges of the score: area under the "
        f"ROC curve with DeLong's limits, Brier score, calibration (Cox 1958) and net benefit of {group['n']:,} "
        f"patients{by}."
    )


def _methods_of_models(report: AuditReport) -> str:
    """A sentence on each of several models."""
    study, fit = report.study, report.fit
    assert study is not None
    sentences = []
    for name, part in study.by_model.items():
        own = None if fit is None else fit.models.get(name)
        end = f"; it took {own.rounds} round{'s' * (own.rounds != 1)}" if own else "; it has no fit" if fit else ""
        sentences.append(f" Model {name} was a {describe_model(part, own)} of {part.formula}{end}.")
    return "".join(sentences)


def _describe_sites(contributors: Sequence[str], study: Study) -> str:
    """The number of sites in the model, and the sites whose rows are not in it."""
    gone = [name for name in study.sites if name not in contributors]
    if not gone:
        return f"{len(study.sites)} sites"
    return f"{len(contributors)} of {len(study.sites)} sites ({', '.join(gone)} excluded on the way)"


def _describe_disclosure(study: Study) -> str:
    """What of the rows stayed at the sites; a study may agree that columns can be rebuilt from what it shares."""
    if study.disclosure.rebuild == "allow":
        return "rows did not leave a site as they are, but the protocol allows that columns be rebuilt from what did"
    return "no patient row left a site in the clear"


def _describe_replay(verdict: Verdict) -> str:
    equal = {"identical": " bit for bit", "within tolerance": f" within {verdict.max_difference:.1g}"}
    done = (
        f"recomputed {verdict.steps} of {verdict.steps + verdict.unchecked} server steps{equal.get(verdict.grade, '')}"
    )
    intact = ", model not recomputed" if verdict.verdict == INTACT else ""
    message = f"An independent replay {done} and ended with {verdict.verdict}{intact}"
    return f"{message}." if verdict.grade in equal else f"{message} ({verdict.grade})."


# The template


def make_environment() -> Environment:
    """Jinja2 with escaping everywhere and no tolerance for a name that is not there."""
    jinja = Environment(
        loader=PackageLoader("coterie_node.audit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {"num": _number, "p": _p_value, "plain": _plain, "short": _short, "day": write_day}
    return jinja


def _number(value: float | None, digits: int = DECIMALS) -> str:
    return "–" if value is None or value != value else f"{value:.{digits}g}"


def _ratio(row: Row, name: str) -> str:
    """A ratio with its interval; "–" in its place where there is none."""
    ratio, interval = limits(row, name)
    return f"{ratio} {interval if row.std_error == row.std_error else '–'}"


def _p_value(value: float | None) -> str:
    if value is None or value != value:
        return "–"
    return "<0.0001" if value < 1e-4 else f"{value:.4f}"


def _plain(value: object) -> str:
    """Text without characters that steer a reader: bidirectional overrides and other controls are spelled out."""
    return printable(str(value))


def _short(value: str, size: int = 18) -> str:
    return value if len(value) <= size else value[: size - 1] + "…"
