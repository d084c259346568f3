"""The result as text, JSON and CSV: stable, aligned, exact, and harmless in a spreadsheet."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from typing import Any

import numpy as np
import pytest

from coterie_learners.core.fit import Fit, coefficient_table
from coterie_node.audit.replay import Verdict
from coterie_node.audit.result import Cost, Result, coefficient_lines, replay_line

FIT = Fit(
    learner="glore",
    family="binomial",
    link="logit",
    terms=("(Intercept)", "age", "stage[II]"),
    estimates=np.array([-4.354251, 2.331545, 0.2182]),
    covariance=np.diag([0.3332**2, 0.72646**2, 0.2969**2]),
    n=1002,
    events=219,
    rounds=8,
    converged=True,
    dispersion=1.0,
    dispersion_known=True,
    deviance=375.893,
    null_deviance=1052.266,
    log_likelihood=-187.9465,
    ratio="OR",
)
COST = Cost(25, 12_345, 0, {"compute": 0.5, "ledger": 0.25, "store": 0.125, "total": 1.0})
PASSED = Verdict("PASS", "identical", 8, 0.0, 25, 0, "converged")
RESULT = Result("edin-mi", ("site1", "site2"), FIT, COST, PASSED, notes=("site1: 500 rows.",))


def change_result(**changes: Any) -> Result:
    return dataclasses.replace(RESULT, fit=dataclasses.replace(FIT, **changes))


# Text


def test_the_text_is_that_of_a_statistician() -> None:
    assert RESULT.text().splitlines() == [
        "GLORE, binomial (logit)    study edin-mi    2 sites: site1, site2",
        "1002 rows, 219 events; 8 rounds",
        "",
        "              Estimate  Std.Error        z  Pr(>|z|)            OR               95% CI",
        "(Intercept)  -4.354251   0.333200  -13.068    <2e-16  ***  0.01285  [0.006689, 0.02469]",
        "age           2.331545   0.726460    3.209   0.00133   **    10.29       [2.479, 42.75]",
        "stage[II]     0.218200   0.296900    0.735     0.462         1.244      [0.6951, 2.226]",
        "Signif.: 0 *** 0.001 ** 0.01 * 0.05 . 0.1",
        "",
        "Null deviance 1052.27 on 1001 df   Residual deviance 375.89 on 999 df",
        "Log-likelihood -187.9465   AIC 381.89   BIC 396.62",
        "site1: 500 rows.",
        "Ledger: 25 records, 12345 payload bytes, 0 gas.",
        "Seconds: compute 0.500, ledger 0.250, store 0.125, total 1.000.",
        "Soundness: no warnings.",
        "Replay: PASS, identical (8 server steps recomputed, largest difference 0).",
    ]
    assert RESULT.summary() == RESULT.text()


def test_a_linear_model_has_t_and_no_ratio() -> None:
    lines = coefficient_lines(dataclasses.replace(FIT, dispersion_known=False, ratio="", dispersion=2.0))
    assert lines[0].split() == ["Estimate", "Std.Error", "t", "Pr(>|t|)", "95%", "CI"]
    assert "[-5.008, -3.7]" in lines[1]


def test_an_estimated_dispersion_is_reported_and_a_known_one_is_not() -> None:
    lines = change_result(dispersion_known=False, dispersion=185.461479, family="gaussian").text().splitlines()
    assert "Dispersion parameter for gaussian taken to be 185.461" in lines
    assert "Dispersion" not in RESULT.text()


def test_a_coefficient_in_large_units_keeps_its_digits_and_its_ratio_is_not_shown_as_one() -> None:
    small = change_result(estimates=np.array([0.0, 2.113e-7, -4.2e-6]), covariance=np.diag([1.0, 1.447e-7**2, 1e-6**2]))
    lines = [line.split() for line in small.text().splitlines()[4:7]]
    assert lines[1][1:3] == ["2.113e-07", "1.447e-07"]
    assert lines[1][-3:] == ["1.00000021", "[0.999999928,", "1.00000049]"]
    assert lines[2][1:3] == ["-4.200e-06", "1.000e-06"]
    assert lines[0][1] == "0.000000"


def test_a_term_whose_standard_error_nobody_has_shows_na_and_no_interval() -> None:
    lines = change_result(covariance=np.diag([0.1, np.nan, 0.1])).text().splitlines()
    assert lines[5].split() == ["age", "2.331545", "NA", "NA", "NA", "10.29", "NA"]
    assert "nan" not in "".join(lines)


def test_one_round_is_one_round_and_a_fit_that_may_not_have_settled_says_so() -> None:
    assert change_result(rounds=1).text().splitlines()[1] == "1002 rows, 219 events; 1 round"
    line = change_result(converged=False).text().splitlines()[1]
    assert line == "1002 rows, 219 events; 8 rounds, not known to have converged"


def test_deviances_of_coefficients_that_a_penalty_chose_have_no_degrees_of_freedom() -> None:
    chosen = change_result(selected=True)
    assert "Null deviance 1052.27   Residual deviance 375.89" in chosen.text().splitlines()
    assert (chosen.as_dict()["df_null"], chosen.as_dict()["df_residual"]) == (None, None)


def test_an_outcome_of_several_levels_has_degrees_of_freedom_for_each() -> None:
    two = change_result(terms=("II:(Intercept)", "III:(Intercept)", "II:age"), equations=2)
    assert "Null deviance 1052.27 on 2002 df   Residual deviance 375.89 on 2001 df" in two.text().splitlines()


def test_a_ratio_too_large_for_a_number_is_infinite_and_not_a_crash() -> None:
    """A covariate in mol/l has a coefficient of thousands."""
    lines = coefficient_lines(dataclasses.replace(FIT, estimates=np.array([0.0, 5000.0, -5000.0])))
    assert lines[2].split()[-3:] == ["inf", "[inf,", "inf]"]
    assert lines[3].split()[-3:] == ["0", "[0,", "0]"]


def test_without_a_null_deviance_or_an_intercept_the_line_says_what_there_is() -> None:
    assert "Residual deviance 375.89 on 999 df" in change_result(null_deviance=None).text().splitlines()
    plain = change_result(terms=("sex", "age", "stage[II]")).text()
    assert "Null deviance 1052.27 on 1002 df   Residual deviance 375.89 on 999 df" in plain


def test_counts_of_events_are_left_out_where_there_are_none() -> None:
    assert change_result(events=None).text().splitlines()[1] == "1002 rows; 8 rounds"


def test_a_difference_to_a_pooled_fit_is_reported_where_there_is_one() -> None:
    with_pooled = dataclasses.replace(RESULT, pooled={"max_abs_estimate": 2e-13, "max_abs_std_error": 3e-14})
    line = "Largest difference to the pooled fit: coefficients 2.0e-13, standard errors 3.0e-14."
    assert line in with_pooled.text().splitlines()
    assert with_pooled.as_dict()["pooled"] == {"max_abs_estimate": 2e-13, "max_abs_std_error": 3e-14}
    assert "pooled" not in RESULT.as_dict()


@pytest.mark.parametrize(
    ("verdict", "line"),
    [
        (None, "Replay: not run (coterie audit replay)."),
        (
            Verdict("PASS", "within tolerance", 8, 3e-9, 25, 2, "converged"),
            "Replay: PASS, within tolerance (8 server steps recomputed, 2 steps sealed to others, "
            "largest difference 3.0e-09).",
        ),
        (
            Verdict("FAIL", "none", 1, 1e-6, 0, 0, "", "north posted a wrong 'model/0'.", "CO-P201", "north"),
            "Replay: FAIL [CO-P201] north posted a wrong 'model/0'.",
        ),
    ],
)
def test_a_verdict_is_one_sentence(verdict: Verdict | None, line: str) -> None:
    assert dataclasses.replace(RESULT, replay=verdict).text().splitlines()[-1] == line
    if verdict is not None:
        assert replay_line(verdict) == line


@pytest.mark.parametrize(
    ("z", "mark"), [(4.0, "***"), (3.0, "**"), (2.2, "*"), (1.8, "."), (1.0, ""), (-4.0, "***"), (0.0, "")]
)
def test_marks_of_significance_follow_the_p_value(z: float, mark: str) -> None:
    fit = dataclasses.replace(FIT, estimates=np.array([0.0, z, 0.0]), covariance=np.eye(3), ratio="")
    cells = coefficient_lines(fit)[2].split()
    assert ([c for c in cells if set(c) <= set("*.")] or [""])[0] == mark


# Python


def test_statsmodels_names_give_the_table() -> None:
    rows = coefficient_table(FIT)
    np.testing.assert_array_equal(RESULT.params, [r.estimate for r in rows])
    np.testing.assert_array_equal(RESULT.bse, [r.std_error for r in rows])
    np.testing.assert_array_equal(RESULT.pvalues, [r.p_value for r in rows])
    np.testing.assert_array_equal(RESULT.conf_int(), [(r.ci_low, r.ci_high) for r in rows])
    assert np.all(np.diff(RESULT.conf_int(alpha=0.5), axis=1) < np.diff(RESULT.conf_int(), axis=1))


# JSON


def test_json_has_the_stable_keys_in_order_and_full_precision() -> None:
    plain = RESULT.as_dict()
    assert list(plain) == [
        "study",
        "learner",
        "family",
        "link",
        "sites",
        "n",
        "events",
        "rounds",
        "converged",
        "terms",
        "level",
        "statistic",
        "statistic_name",
        "deviance",
        "df_residual",
        "null_deviance",
        "df_null",
        "aic",
        "bic",
        "log_likelihood",
        "dispersion",
        "soundness",
        "vcov",
        "ledger",
        "seconds",
        "replay",
        "notes",
        "details",
        "model",
    ]
    assert list(plain["terms"][0]) == ["term", "estimate", "std_error", "z", "p_value", "ci_low", "ci_high"]
    assert plain["ledger"] == {"records": 25, "payload_bytes": 12_345, "gas": 0}
    back = json.loads(json.dumps(plain, allow_nan=False))
    assert back == plain
    assert [t["estimate"] for t in back["terms"]] == FIT.estimates.tolist()


def test_json_has_the_statistic_and_degrees_of_freedom() -> None:
    plain = RESULT.as_dict()
    assert (plain["statistic"], plain["df_residual"], plain["df_null"]) == ("z", 999, 1001)
    assert change_result(dispersion_known=False).as_dict()["statistic"] == "t"
    assert change_result(null_deviance=None).as_dict()["df_null"] is None


def test_json_has_no_number_that_json_does_not_know() -> None:
    odd = change_result(log_likelihood=math.inf, details={"q": [math.nan, 1.0], "by": {"i2": -math.inf}}).as_dict()
    assert (odd["log_likelihood"], odd["aic"], odd["details"]) == (None, None, {"q": [None, 1.0], "by": {"i2": None}})
    json.dumps(odd, allow_nan=False)


def test_json_of_a_result_that_was_not_replayed_says_so() -> None:
    plain = dataclasses.replace(RESULT, replay=None).as_dict()["replay"]
    assert plain == {"verdict": "NOT RUN", "grade": "none", "steps": 0, "max_difference": None}


# CSV


def cells(result: Result) -> list[list[str]]:
    return list(csv.reader(io.StringIO(result.csv())))


def test_csv_has_brooms_columns_and_every_bit() -> None:
    head, *body = cells(RESULT)
    assert head == ["term", "estimate", "std.error", "statistic", "p.value", "conf.low", "conf.high"]
    assert [row[0] for row in body] == list(FIT.terms)
    for row, want in zip(body, coefficient_table(FIT), strict=True):
        assert [float(cell) for cell in row[1:]] == list(want.as_dict().values())[1:]


@pytest.mark.parametrize("term", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_no_cell_is_a_formula_for_a_spreadsheet(term: str) -> None:
    body = cells(change_result(terms=("(Intercept)", term, "x")))[1:]
    assert body[1][0] == "'" + term
    assert [row[0] for row in (body[0], body[2])] == ["(Intercept)", "x"]


def test_commas_quotes_and_letters_of_any_tongue_survive() -> None:
    terms = ('stage[a, "b"]', "größe", "stage[II]")
    assert [row[0] for row in cells(change_result(terms=terms))[1:]] == list(terms)


def test_what_nobody_measured_is_shown_as_missing() -> None:
    cost = Cost(25, 12_345, None, {"compute": None, "ledger": None, "store": None, "total": 1.0, "round": 0.125})
    result = dataclasses.replace(RESULT, cost=cost)
    assert "Ledger: 25 records, 12345 payload bytes, NA gas." in result.text()
    assert "Seconds: compute NA, ledger NA, store NA, total 1.000, round 0.125." in result.text()
    assert (result.as_dict()["ledger"]["gas"], result.as_dict()["seconds"]["compute"]) == (None, None)


def test_a_record_whose_model_nobody_recomputed_never_passes() -> None:
    verdict = Verdict("RECORD INTACT", "nothing recomputed", 0, 0.0, 25, 0, "converged")
    assert replay_line(verdict).startswith("Replay: RECORD INTACT, model not recomputed, nothing recomputed (0 server")
    assert (verdict.status, verdict.intact, verdict.recomputed) == (25, True, {"server_steps": 0, "of": 0})
    assert replay_line(dataclasses.replace(PASSED, unsealed=True)).endswith("; on a chain without seals.")
