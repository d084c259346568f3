"""`coterie study`: which learner fits a study and why; and what a study does, for the people who approve it.

The advice looks at the study (split, covariates, sites, floors) and at the number of rows if it is given, and then runs
each learner with its release gate on synthetic rows of that shape; it reads no data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coterie_learners.core.registry import complete_study, find_learner, list_learners
from coterie_learners.errors import StudyError
from coterie_learners.study.document import Study
from coterie_learners.sums.families import choose_family
from coterie_node.analysis.trial import Width, can_try, expect_widths, guess_sizes, try_gate
from coterie_node.cli.options import At, Json, NodeOption, Site, StudyFile, open_site
from coterie_node.cli.output import print_document
from coterie_node.run.study_files import load_study, read_plain
from coterie_node.verbs.disclosure import describe, disclosure_lines

if TYPE_CHECKING:
    from coterie_node.site.folder import SiteFolder


@dataclass(frozen=True)
class Advice:
    """One learner: whether it can run the study, and why or why not; the first that can is the advice.

    `options`: those of the learner that must be set for it. `needs`: what the study lacks for it.
    """

    learner: str
    fits: bool
    why: str
    options: Mapping[str, str] = field(default_factory=dict)
    needs: str = ""

    @property
    def name(self) -> str:
        """The learner with the options to set."""
        return " ".join([self.learner, *(f'with {name} = "{value}"' for name, value in self.options.items())])


NOTHING_FITS = 3
# Options without which a fit is another one, and what is said of a learner that lacks them.
_QUESTIONS = {
    "time": "it models no times to an event",
    "treatment": "it compares no arms of a treatment",
    "weights": "it weighs no rows",
}


def advise(study: Study, rows: int | None = None) -> list[Advice]:
    """All installed learners, the most suitable first; `rows` over all sites, if it is known."""
    learners = [find_learner(name) for name in list_learners()]
    here = [learner for learner in learners if study.split in learner.splits]
    assessed = sorted(
        ((learner.profile.suits(study, rows), learner.name) for learner in here), key=lambda pair: pair[0].rank
    )
    advices = [
        _check_options(study, Advice(name, suits.fits, suits.why, needs=suits.needs)) for suits, name in assessed
    ]
    split = f"it is for studies whose {'rows' if study.split == 'columns' else 'columns'} are split over sites."
    advices += [Advice(learner.name, False, split) for learner in learners if learner not in here]
    return sorted(advices, key=lambda item: not item.fits)


def try_advices(
    study: Study, advices: Sequence[Advice], rows: Sequence[int] = (), events: float | None = None
) -> list[Advice]:
    """The advices after each learner that could run the study ran it on synthetic rows, or one of its variants did."""
    sizes = guess_sizes(study, rows)
    judged = [_try_advice(study, item, sizes, events) if item.fits else item for item in advices]
    return sorted(judged, key=lambda item: not item.fits)


def _try_advice(study: Study, item: Advice, sizes: Mapping[str, int], events: float | None) -> Advice:
    reasons: list[str] = []
    for options in ({}, *find_learner(item.learner).profile.alternatives):
        try:
            refusal = try_gate(_complete_with(study, item.learner, options), sizes, events)
        except StudyError:
            continue
        if not refusal:
            changed = f" With the options as they are its gate refuses synthetic rows: {reasons[0]}" if reasons else ""
            return replace(item, why=f"{item.why}{changed}", options=options)
        reasons.append(refusal)
    return Advice(item.learner, False, f"the gate refuses the study on synthetic rows of this shape. {reasons[0]}")


def _check_options(study: Study, advice: Advice) -> Advice:
    """The advice, or why the learner would not take this study with those of the given options that it knows."""
    if not advice.fits:
        return advice
    asked, family = _find_family(study), _family_without_choice(advice.learner)
    if asked is not None and family is not None and asked != family:
        return Advice(advice.learner, False, f"it fits {family} models, and the study asks for a {asked} one.")
    unknown = _find_other_question(study, advice.learner)
    if unknown:
        return Advice(advice.learner, False, unknown)
    try:
        _complete_with(study, advice.learner)
    except StudyError as error:
        return Advice(advice.learner, False, error.message)
    return advice


def _find_other_question(study: Study, learner: str) -> str:
    """Why a learner would answer another question than the study asks, as it lacks an option; empty if it would not."""
    options, known = study.learner.options, find_learner(learner).options.model_fields
    asked = (name for name in _QUESTIONS if isinstance(options.get(name), str) and options[name])
    return next((f"{_QUESTIONS[n]}, and the study names its `{n}`." for n in asked if n not in known), "")


def _family_without_choice(learner: str) -> str | None:
    """The family of a learner that has no choice."""
    model = find_learner(learner).profile.model
    return model[0] if model else None


def _has_counts(study: Study) -> bool:
    """Whether a sum of the study's outcome counts events."""
    family = _find_family(study)
    return family is None or choose_family(family, None).count_events(0.0) is not None


def _find_family(study: Study) -> str | None:
    """The family that the study asks for, if only by the default of the learner that it names."""
    try:
        model = find_learner(study.learner.name).options.model_fields
    except StudyError:
        return None
    default = model["family"].default if "family" in model else _family_without_choice(study.learner.name)
    return study.learner.options.get("family", default)


def _disclose_advice(study: Study, advice: Advice) -> Iterator[str]:
    """What the study would disclose with the learner that is the advice."""
    if advice.fits:
        yield from disclosure_lines(_complete_with(study, advice.learner, advice.options))


def _complete_with(study: Study, learner: str, more: Mapping[str, str] = MappingProxyType({})) -> Study:
    """The completed study with a learner, those of its options that this learner knows, and some more."""
    model = find_learner(learner).options.model_fields
    options = {name: value for name, value in study.learner.options.items() if name in model} | dict(more)
    return complete_study(Study.model_validate({**study.model_dump(), "learner": {"name": learner, **options}}))


def advise_command(
    study: StudyFile,
    rows: Annotated[
        str | None,
        typer.Option(help="Number of rows of all sites together, or of each site: 800,1200,500.", metavar="N[,N...]"),
    ] = None,
    events: Annotated[
        str | None, typer.Option(help="Frequency of the outcome: 6%, or a number of events.", metavar="SHARE")
    ] = None,
    node: NodeOption = None,
    at: At = None,
    site: Site = None,
    as_json: Json = False,
) -> None:
    """Say which learner fits a study, and why; status 3 if none does. Synthetic rows are tried; no data are read.

    With a site's folder its privacy log says which earlier evaluations this study would stand beside.
    """
    plain = read_plain(study)
    sizes = read_sizes(plain, rows)
    share = read_share(events, sum(guess_sizes(plain, sizes).values()))
    if share is not None and not _has_counts(plain):
        raise typer.BadParameter("A measured outcome, or one of several levels, has no events.", param_hint="--events")
    advices = try_advices(plain, advise(plain, sum(sizes) or None), sizes, share)
    best = advices[0]
    nothing = next((f"Advice: {item.learner}, with {item.needs}." for item in advices if item.needs), "")
    head = f"Advice: {best.name}" if best.fits else nothing or "Advice: no installed learner fits."
    lines = [f"  {item.learner:<14s} {'can run it' if item.fits else 'cannot'}: {item.why}" for item in advices]
    widths = _widths_of(plain, best, sizes, share) if best.fits and sizes else ()
    chosen = _complete_with(plain, best.learner, best.options) if best.fits else plain
    warnings = list_repeats(chosen, open_site(node, at, site) if node or at or site else None)
    document = {
        "advice": best.learner if best.fits else None,
        "options": dict(best.options),
        "learners": [asdict(item) for item in advices],
        "widths": [asdict(width) for width in widths],
        "warnings": warnings,
    }
    text = [head, *lines, *width_lines(widths), *warnings, *_disclose_advice(plain, best)]
    print_document(document, "\n".join(text), as_json)
    if not best.fits:
        raise typer.Exit(NOTHING_FITS)


def _widths_of(study: Study, best: Advice, sizes: Sequence[int], share: float | None) -> tuple[Width, ...]:
    of = _complete_with(study, best.learner, best.options)
    return expect_widths(of, guess_sizes(study, sizes), share) if can_try(find_learner(best.learner)) else ()


def list_repeats(study: Study, folder: SiteFolder | None = None) -> list[str]:
    """What becomes of other evaluations of the same patients; with a site's folder what its log has of them."""
    from coterie_node.release.known_ranges import warn_of_repeats
    from coterie_node.verbs.studies import warn_of_evaluations_here

    general = warn_of_repeats(study)
    return [*([general] if general else []), *(warn_of_evaluations_here(folder, study).values() if folder else ())]


def width_lines(widths: Sequence[Width]) -> list[str]:
    """The expected widths for a terminal."""
    if not widths:
        return []
    head = "Expected width of each 95 % interval, from synthetic rows (a measured column per standard deviation):"
    return [head, *(f"  {width.line}" for width in widths)]


def read_sizes(study: Study, text: str | None) -> tuple[int, ...]:
    """Rows in all (one number) or by site; BadParameter for anything else."""
    words = [] if text is None else text.split(",")
    if not all(word.strip().isascii() and word.strip().isdigit() and int(word) > 0 for word in words):
        raise typer.BadParameter(f"'{text}' is not a number of rows. Write 2500, or 800,1200,500.", param_hint="--rows")
    if len(words) not in (0, 1, len(study.sites)):
        message = f"{len(words)} numbers of rows for {len(study.sites)} sites. Give one for each, or one for all"
        raise typer.BadParameter(f"{message}.", param_hint="--rows")
    return tuple(int(word) for word in words)


def read_share(text: str | None, rows: int) -> float | None:
    """Events per row from a share in percent, a fraction below 1, or a number of events; BadParameter else."""
    if text is None:
        return None
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1.0
    share = value / 100.0 if text.endswith("%") else value / rows if value >= 1.0 else value
    if not 0.0 < share < float("inf") or (text.endswith("%") and share >= 1.0):
        raise typer.BadParameter(
            f"'{text}' is not a fraction of events. Write 6%, 0.06, or 150.", param_hint="--events"
        )
    return share


def show_file(study: Path, as_json: bool) -> None:
    """Print what the study of a file does: sites, model, what leaves a site, and who must be trusted with what."""
    loaded = load_study(study)
    description = describe(loaded)
    rest = {name: value for name, value in description.items() if value and name != "discloses"}
    lines = [f"{name:<10s} {in_words(value)}" for name, value in rest.items()]
    print_document(description, "\n".join([*lines, *disclosure_lines(loaded)]), as_json)


def in_words(value: Any) -> str:
    """A value of what a study does, for people to read."""
    if isinstance(value, dict):
        return ", ".join(f"{key} = {json.dumps(item)}" for key, item in value.items())
    if isinstance(value, list):
        # Formulas and options have commas.
        return ("\n" + 11 * " " if any(": " in item or item.endswith(".") for item in value) else ", ").join(value)
    return str(value)
