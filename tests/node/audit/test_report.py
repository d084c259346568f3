"""The report: it says what the replay said, holds what the ledger holds, loads nothing, and no name can turn it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from node.audit.test_influence import flip_labels
from support.learners import cohorts, many_models
from support.learners.survival_study import curve_study, read_columns, split_sites
from support.node.worlds import World, cohort, sweep, until

from coterie_chain.ledger.protocol import Event, SiteEntry
from coterie_learners.core.fit import coefficient_table
from coterie_learners.study.document import Study
from coterie_learners.study.rows import Rows
from coterie_learners.survival.survival_curves import survival_curves
from coterie_node.audit.replay import Replay, replay
from coterie_node.audit.report.figures import draw_convergence, draw_forest
from coterie_node.audit.report.page import AuditReport, ReportSource, make_report, report_failure, write_report
from coterie_node.errors import AuditFailed, ConfigError
from coterie_node.run.follower import Progress
from coterie_node.run.simulate import simulate

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SOURCE = ReportSource(("It rests on block 0.",), "coterie audit verify bundle.zip")
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
# What a browser does not close.
VOID = frozenset({"meta", "link", "br", "img"})


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def report_world(world: World) -> AuditReport:
    progress: list[Progress] = []
    outcome = replay(world.ledger(), world.blobs, world.number, observe=progress.append)
    return make_report(world.ledger(), world.blobs, world.number, outcome, progress, SOURCE, NOW)


@cache
def eventful() -> AuditReport:
    """A plain study of four sites, with a skip, and one site whose labels are turned."""
    world = cohort(4, n=800, aggregation="plain", silent_site="exclude")
    flip_labels(world, "south")
    crew = world.crew()
    until(lambda: (o := world.view().open) is not None and o.position == 1, crew.values())
    world.late()
    rest = [crew[n] for n in ("south", "east", "west")]
    until(lambda: (o := world.view().open) is not None and o.position == 2, rest)
    sweep(crew.values())
    return report_world(world)


@cache
def report_masked_study() -> AuditReport:
    world = cohort(3)
    sweep(world.crew().values())
    return report_world(world)


def failing() -> AuditReport:
    """A study whose server lied."""
    world = cohort(3)
    crew = world.crew(tolerance=1.0)
    until(lambda: (o := world.view().open) is not None and o.position == 1, crew.values())
    world.forge("north", lambda p: p["beta"].__setitem__(2, p["beta"][2] + 1e-6))
    sweep(crew.values())
    return report_world(world)


def test_the_verdict_comes_first_and_every_section_is_there() -> None:
    page = Page(eventful().html())
    assert page.open == []
    headings = re.findall(r"<h2[^>]*>(\d+)\.", eventful().html())
    assert headings == [str(k) for k in range(1, 13)]
    assert page.text.index("1. Verdict: PASS") < page.text.index("2. Charter")


def test_the_page_holds_what_the_ledger_and_the_fit_hold() -> None:
    report = eventful()
    page = Page(report.html()).text
    assert report.study is not None
    assert report.fit is not None
    assert report.study.hash.hex() in page
    for record in report.records:
        assert record.post.cid in page
        assert record.post.sha256.hex() in page
    for row in coefficient_table(report.fit):
        assert f"{row.estimate:.6g}" in page
        assert f"{row.std_error:.6g}" in page
    for site in report.sites:
        assert site.address in page
    assert "ServerSkipped" in page
    assert "position 1. server=north" in page
    assert "coterie audit verify bundle.zip" in page
    assert "It rests on block 0." in page
    assert "true and complete rows" in page


def test_turns_records_and_bytes_are_counted_per_site() -> None:
    report = eventful()
    turns = {row["site"]: row for row in report.turns}
    assert sum(row["records"] for row in turns.values()) == len(report.records)
    assert sum(row["served"] for row in turns.values()) == sum(r.kind == "server" for r in report.records)
    assert (turns["north"]["skipped"], turns["south"]["skipped"]) == (1, 0)
    assert turns["west"]["bytes"] == sum(r.post.size for r in report.records if r.site == "west")


def test_the_disagreeing_site_is_named_with_a_table_of_q() -> None:
    page = Page(eventful().html()).text
    assert "south does not go together with the other sites" in page
    assert "Cochran's Q and I²" in page


def test_masked_sums_are_described_and_give_no_forest_by_site() -> None:
    report = report_masked_study()
    assert "only sums over the sites exist" in Page(report.html()).text
    assert report.forest is not None
    assert all(bar.pooled for bar in report.forest.bars)


def test_a_comparison_that_fails_says_so_with_its_code() -> None:
    report = report_world(cohort(4, n=800, aggregation="plain"))
    assert report.screen is not None
    assert report.screen.statements[0].startswith("The comparison of the sites failed (CO-A107): ")
    assert "The comparison of the sites failed (CO-A107)" in Page(report.html()).text


def test_a_failed_verdict_names_site_and_step_and_prints_no_false_comfort() -> None:
    report = failing()
    page = Page(report.html()).text
    assert "1. Verdict: FAIL" in page
    assert "CO-P201" in page
    assert "model/0" in page
    assert "north" in page
    assert "The published model is what" not in page
    assert "every server step was recorded by the site whose turn it was" not in page
    assert report.screen is None


def test_steps_that_rest_on_sealed_payloads_are_not_said_to_be_recomputed() -> None:
    report = report_masked_study()
    servers = [p for p in report.progress if p.kind == "server"]
    last = max((p for p in servers if not p.concludes), key=lambda p: p.position)
    sealed = tuple(replace(p, recomputed=False) if p.kind == "server" else p for p in report.progress)
    sealed = tuple(replace(p, sealed=("north",)) if p.position == 0 else p for p in sealed)
    checked = [(row["line"].kind, row["line"].site, row["checked"]) for row in replace(report, progress=sealed).steps]
    assert {c for kind, _, c in checked if kind == "server"} == {
        "form and binding; its inputs are sealed to others",
        "nothing to read: it ends the study",
    }
    assert ("each", "north", "bytes only: sealed to others") in checked
    assert last.recomputed
    verdict = replace(report.verdict, grade="partly sealed", unchecked=3)
    page = Page(replace(report, replay=replace(report.replay, verdict=verdict)).html()).text
    assert "The published model is what" not in page
    assert f"{report.verdict.steps} of {report.verdict.steps + 3}" in page
    assert "(partly sealed)" in page


def test_the_methods_paragraph_does_not_count_a_site_that_was_excluded() -> None:
    report = report_masked_study()
    assert "at 3 sites" in report.methods
    first, *others = report.replay.contributors
    outcome = replace(report.replay, contributors=tuple(others))
    assert f"at 2 of 3 sites ({first} excluded on the way)" in replace(report, replay=outcome).methods


def test_the_methods_paragraph_says_nothing_that_is_not_so() -> None:
    report = report_masked_study()
    assert report.study is not None
    assert "before any data" not in Page(report.html()).text
    assert "no patient row left a site in the clear" in report.methods
    floors = report.study.disclosure.model_copy(update={"rebuild": "allow"})
    study = report.study.model_copy(update={"disclosure": floors})
    assert "columns be rebuilt" in replace(report, replay=replace(report.replay, study=study)).methods
    assert "no patient row" not in replace(report, replay=replace(report.replay, study=study)).methods


def test_a_study_without_a_floor_for_cells_says_so() -> None:
    report = report_masked_study()
    assert report.study is not None
    assert "no count from 1 to 4 solvable" in Page(report.html()).text
    study = report.study.model_copy(update={"disclosure": report.study.disclosure.model_copy(update={"cell": 0})})
    page = Page(replace(report, replay=replace(report.replay, study=study)).html()).text
    assert "any count may be solvable" in page
    assert "to -1" not in page


def test_a_method_without_standard_errors_has_no_empty_columns() -> None:
    report = report_masked_study()
    assert report.fit is not None
    plain = replace(report, replay=replace(report.replay, fit=replace(report.fit, covariance=None, selected=True)))
    page = Page(plain.html()).text
    assert "the method has no standard errors" in page
    assert "std. error" not in page
    assert " df" not in page[page.index("8. Result") : page.index("9. Do the sites")]


def test_a_report_on_curves_draws_them_with_the_numbers_at_risk() -> None:
    study = curve_study()
    rows = cast(dict[str, Rows], split_sites(read_columns(), study.sites))
    world = World(study, rows, survival_curves)
    sweep(world.crew().values())
    report = report_world(world)
    assert report.curves in report.html()
    assert "At risk" in report.curves
    assert report_masked_study().curves == ""


def test_the_result_of_the_report_has_degrees_of_freedom_and_intervals_of_the_ratio() -> None:
    report = report_masked_study()
    assert report.fit is not None
    page = Page(report.html()).text
    assert f"on {report.fit.df_residual} df" in page
    assert "95 % from" not in page  # both intervals do not fit on a page
    linear = replace(report, replay=replace(report.replay, fit=replace(report.fit, ratio="", dispersion_known=False)))
    assert "95 % from" in Page(linear.html()).text
    assert "Dispersion parameter 1." in Page(linear.html()).text
    for row in coefficient_table(report.fit):
        assert f"{math.exp(row.estimate):.4g} [{math.exp(row.ci_low):.4g}, {math.exp(row.ci_high):.4g}]" in page


def test_what_could_not_be_read_has_a_report_as_well() -> None:
    from coterie_node.audit.replay import failure

    outcome = Replay(failure(AuditFailed("CO-A201", "The bundle cannot be read: it is torn.")), None, None)
    page = Page(report_failure(outcome, SOURCE, NOW).html())
    assert "it is torn" in page.text
    assert "Study that could not be read" in page.text
    assert page.open == []


@pytest.mark.parametrize("make", [eventful, report_masked_study, failing])
def test_the_page_loads_nothing_and_has_no_script(make: Callable[[], AuditReport]) -> None:
    text = make().html()
    page = Page(text)
    assert not page.all("script")
    assert [a for _, a in page.tags if any(name.startswith("on") for name in a)] == []
    assert {a.get("href") for _, a in page.tags if "href" in a} == {"data:,", "#verdict"}
    assert [a for _, a in page.tags if "src" in a] == []
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in str(page.all("meta"))


@pytest.mark.parametrize("make", [eventful, report_masked_study, failing])
def test_the_page_can_be_read_by_everybody(make: Callable[[], AuditReport]) -> None:
    page = Page(make().html())
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == len(page.all("main")) == 1
    assert len(page.all("caption")) == len(page.all("table"))
    assert all("scope" in a for a in page.all("th"))
    assert all(a["role"] == "img" and a["aria-labelledby"] for a in page.all("svg"))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    named = [
        name for _, a in page.tags for name in str(a.get("aria-labelledby", "")).split() if a.get("aria-labelledby")
    ]
    assert set(named) <= set(ids)


def hostile() -> AuditReport:
    """A report in which everything that others may name is hostile."""
    variables = {
        "died": {"type": "binary", "label": EVIL, "unit": EVIL},
        "stage": {"type": "category", "levels": ["I", EVIL, "III"]},
    }
    study = cohorts.study(variables=variables)
    study = Study.model_validate({**study.model_dump(), "title": EVIL})
    report = eventful()
    assert report.fit is not None
    fit = replace(report.fit, terms=(EVIL, *report.fit.terms[1:]), notes=(EVIL,))
    event = Event("ServerSkipped", 1, EVIL, (("server", EVIL), ("position", 1)), 9, 0, EVIL)
    joined = Event("StudyJoined", 1, EVIL, (("snapshot", EVIL),), 9, 0, EVIL)
    verdict = replace(report.verdict, outcome=EVIL)
    return replace(
        report,
        replay=Replay(verdict, study, fit),
        entries=(*report.entries, event, joined),
        sites=(*report.sites, SiteEntry(9, EVIL, EVIL, b"", b"")),
        source=ReportSource((EVIL,), EVIL, {"rows": EVIL, "max_in_std_errors": EVIL, "study": study.hash.hex()}),
    )


def test_hostile_names_are_harmless_in_the_page() -> None:
    text = hostile().html()
    page = Page(text)
    assert page.open == []
    assert not page.all("script")
    assert not page.all("img")
    assert "<script>" not in text
    assert text.count("&lt;script&gt;") >= 8
    failed = replace(
        hostile(),
        replay=Replay(replace(hostile().verdict, verdict="FAIL", problem=EVIL, site=EVIL, topic=EVIL), None, None),
    )
    assert not Page(failed.html()).all("script")


def test_a_report_on_a_learner_that_is_not_here_says_that_nobody_can_say_what_it_discloses() -> None:
    report = eventful()
    assert report.study is not None
    study = Study.model_validate({**report.study.model_dump(), "learner": {"name": "elsewhere", "version": "1"}})
    text = replace(report, replay=replace(report.replay, study=study)).html()
    assert "What this study discloses cannot be said here" in text
    assert "CO-S401" in text


def test_a_certificate_is_shown_with_its_own_study_only() -> None:
    report = eventful()
    assert report.study is not None
    for study, visible in ((report.study.hash.hex(), True), ("ab" * 32, False)):
        source = ReportSource((), "x", {"rows": 990, "max_in_std_errors": 1e-13, "study": study})
        assert ("On 990 rows of synthetic data" in replace(report, source=source).html()) == visible


def test_a_certificate_has_no_words_of_its_own_in_the_report() -> None:
    """It lies unsigned in the bundle: whoever passes one on can write what he likes into it."""
    report = eventful()
    assert report.study is not None
    claims = {"sentence": "On 3,000,000 real patients the fit was proved right.", "study": report.study.hash.hex()}
    forged = {**claims, "rows": 990, "max_in_std_errors": 1e-13}
    page = Page(replace(report, source=ReportSource((), "x", forged)).html()).text
    assert "real patients" not in page
    assert "no part of the proof" in page
    for odd in ({"rows": "990"}, {"max_in_std_errors": "none"}, {"rows": None}):
        assert "rows of synthetic data" not in replace(report, source=ReportSource((), "x", {**forged, **odd})).html()


def test_characters_that_turn_the_line_are_spelled_out() -> None:
    report = replace(eventful(), source=ReportSource(("safe\u202etxt.exe",), "x"))
    assert "\u202e" not in report.html()


def test_a_pdf_is_made_of_the_same_page(tmp_path: Path) -> None:
    try:
        import weasyprint
    except OSError as error:
        pytest.skip(f"cannot run here: WeasyPrint lacks its library: {error}")
    assert weasyprint.VERSION
    write_report(eventful(), tmp_path / "report.pdf")
    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert len(content) > 20_000


def test_html_and_json_are_written_and_other_kinds_refused(tmp_path: Path) -> None:
    write_report(eventful(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == eventful().html()
    write_report(eventful(), tmp_path / "report.json")
    plain: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    assert (plain["verdict"], plain["made"]) == ("PASS", "2026-11-24T12:00:00Z")
    assert len(plain["terms"]) == 6
    assert plain["screen"]["outliers"] == ["south"]
    with pytest.raises(ConfigError, match="has no format for"):
        write_report(eventful(), tmp_path / "report.docx")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_report(eventful(), tmp_path / "nowhere" / "report.html")


def test_the_methods_paragraph_says_what_identifies_the_analysis() -> None:
    report = report_masked_study()
    assert report.study is not None
    text = report.methods
    assert report.study.hash.hex() in text
    assert "binomial regression (logit link) by GLORE on 90 patients" in text
    assert "bit for bit" in text


# Figures


def test_a_report_on_several_models_has_a_table_and_a_sentence_of_each() -> None:
    models: dict[str, dict[str, Any]] = {
        "crude": {"formula": "died ~ male"},
        "pressure": {"formula": "score ~ age", "family": "gaussian", "robust": True},
        "split": {"formula": "died ~ stage"},
    }
    codes = cohorts.draw(240)
    codes["died"] = np.where(codes["stage"] == 2, 1.0, codes["died"])
    study = many_models.study(models, options={"opening": "counts"}, disclosure={"cell": 1})
    world, _, _ = simulate(study, many_models.split(study, codes))
    outcome = replay(world.ledger(), world.blobs, world.number)
    report = make_report(world.ledger(), world.blobs, world.number, outcome, [], SOURCE, NOW)
    text = Page(report.html()).text
    for words in ("Model crude", "Model pressure", "GLORE, gaussian (identity)", "Model split has no fit."):
        assert words in text
    assert "crude: died ~ male" in text
    assert "Model crude was a binomial regression (logit link) by GLORE of died ~ male; it took" in report.methods
    assert "sandwich standard errors (HC0) by GLORE of score ~ age" in report.methods
    assert "by GLORE of died ~ stage; it has no fit." in report.methods
    assert {row["model"] for row in report.coefficients} == {"crude", "pressure"}
    assert report.result is not None
    assert list(report.result["models"]) == ["crude", "pressure"]
    assert report.soundness == "1 warning"


def test_the_forest_plot_draws_the_table_s_numbers_to_scale() -> None:
    report = eventful()
    assert report.fit is not None
    assert report.screen is not None
    plot = draw_forest(report.fit, report.screen.comparison)
    assert plot is not None
    rows = {row.term: row for row in coefficient_table(report.fit)}
    pooled = [bar for bar in plot.bars if bar.pooled]
    assert [bar.label for bar in pooled] == list(rows)[1:]
    # two known places give the scale; everything else must lie on it
    a, b = pooled[0], pooled[1]
    scale = (a.x - b.x) / (rows[a.label].estimate - rows[b.label].estimate)
    for bar in pooled:
        row = rows[bar.label]
        assert bar.x - plot.nothing == pytest.approx(scale * row.estimate, abs=1e-6)
        assert bar.high - bar.low == pytest.approx(scale * (row.ci_high - row.ci_low), abs=1e-6)
        assert bar.value.startswith(f"{math.exp(row.estimate):.3g} [")
    for tick in plot.ticks:
        assert tick.at - plot.nothing == pytest.approx(scale * math.log(float(tick.label)), abs=1e-6)
    assert len(plot.bars) == 5 * len(pooled)


def test_an_interval_without_end_is_cut_and_says_so() -> None:
    report = report_masked_study()
    assert report.fit is not None
    assert report.fit.covariance is not None
    wide = replace(report.fit, covariance=report.fit.covariance * np.diag([1.0, 1e6, 1, 1, 1, 1]) ** 0.5)
    wide = replace(wide, covariance=np.diag([1.0, 1e4, 1, 1, 1, 1]))
    plot = draw_forest(wide, None)
    assert plot is not None
    assert plot.bars[0].cut_low
    assert plot.bars[0].cut_high
    assert all(0 <= x <= plot.width for bar in plot.bars for x in (bar.low, bar.x, bar.high))


def test_a_method_without_standard_errors_has_no_forest() -> None:
    report = report_masked_study()
    assert report.fit is not None
    assert draw_forest(replace(report.fit, covariance=None), None) is None


def test_the_convergence_plot_falls_with_the_steps() -> None:
    line = draw_convergence([{"gain": 10.0 ** (-2 * k)} for k in range(6)])
    assert line is not None
    ys = [y for _, y, _ in line.points]
    assert ys == sorted(ys)
    assert np.diff(ys) == pytest.approx([np.diff(ys)[0]] * 5)
    assert [t.label for t in line.x_ticks] == list("123456")
    assert draw_convergence([{"deviance": 1.0}] * 3) is None
    assert draw_convergence([]) is None
