"""Predictions of a published model for rows of this machine, as R's `predict(..., se.fit = TRUE)` gives them.

A result (JSON) is enough: it holds formula, levels, coefficients and their covariance. For a row x the linear predictor
is eta = offset + x'b with the standard error sqrt(x'Vx). The response is the family's mean at eta, with the error
|d mu / d eta| times that of eta (delta method). Limits are those of eta, carried to the response: normal where the
dispersion is known, Student's t where it is estimated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from coterie_learners.core.fit import LEVEL
from coterie_learners.errors import DataError, StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import normal_quantile, t_quantile
from coterie_learners.study.design import Design
from coterie_learners.study.document import IdentifierKind, Study
from coterie_learners.study.formula import parse_formula
from coterie_learners.study.time_columns import list_time_columns
from coterie_learners.sums.families import choose_family
from coterie_learners.sums.family import Family
from coterie_node.analysis.baseline_survival import BaselineSurvival, open_survival
from coterie_node.analysis.level_predictions import LevelModel
from coterie_node.analysis.response import find_ends, find_response
from coterie_node.data.coding import as_text
from coterie_node.data.installed_source import RowsAddress
from coterie_node.data.load import FirstPass, check_values, open_source
from coterie_node.data.source import RowSource, check_unchanged
from coterie_node.data.streaming import code_columns, lacking
from coterie_node.errors import ConfigError

# The family of a result whose coefficients are logarithms of hazard ratios.
COX = "Cox"


class CovariateDesign(Design):
    """The columns of a model whose rows have no outcome yet.

    `label`: a column that names each row, or nothing. `stratum`: the column of a baseline hazard's stratum, or nothing.
    """

    def __init__(self, study: Study, label: str = "", stratum: str = "") -> None:
        self.label, self.stratum = label, stratum  # the base class asks for the variables
        super().__init__(study)

    @property
    def outcome_here(self) -> str | None:
        """None: the outcome is what is predicted."""
        return None

    @property
    def identifying(self) -> dict[str, IdentifierKind]:
        """The column that names each row."""
        return {self.label: "code"} if self.label else {}

    @cached_property
    def variables(self) -> tuple[str, ...]:
        """The variables of the terms, and the offset."""
        hidden = {self.formula.outcome, self.weights, *list_time_columns(self.study)}
        covariates = [n for n in (*self.list_covariates(), self.formula.offset) if n and n not in hidden]
        return tuple(dict.fromkeys([*covariates, *([self.stratum] if self.stratum else [])]))


@dataclass(frozen=True)
class PredictedRows:
    """Rows of a file: what names each (or nothing), and predictions by column, (m,) each, NaN for a lacking value."""

    labels: Sequence[str]
    columns: Mapping[str, Array]


@dataclass(frozen=True)
class Predictor:
    """A published model: its columns, coefficients b (p,), covariance V (p, p) or None, and t's freedom.

    `family` is None for a Cox model; `levels` are those of an outcome that is a category. `deriving`: the same columns,
    some of them derived from others of the file.
    """

    design: CovariateDesign
    beta: Array
    covariance: Array | None
    family: Family | None
    levels: LevelModel | None = None
    freedom: int | None = None
    level: float = LEVEL
    survival: BaselineSurvival | None = None
    deriving: CovariateDesign | None = None

    def predict_survival(self, x: Array, offset: Array, stratum: Array) -> dict[str, Array]:
        """Survival at the asked times of rows x (m, p) with offset and stratum (m,); nothing where none is asked."""
        if self.survival is None or self.covariance is None:
            return {}
        rows = x, offset, stratum.astype(np.int64)
        return self.survival.predict(rows, (self.beta, self.covariance), self.quantile)

    def predict(self, x: Array, offset: Array) -> dict[str, Array]:
        """Predictions of rows x (m, p) with their offsets (m,), each column (m,)."""
        if self.levels:
            return self.levels.predict(x, self.beta, self.covariance, self.quantile)
        eta = x @ self.beta + offset
        error = self._compute_errors(x)
        half = self.quantile * error
        mean, slope = self.respond(eta)
        low, high = find_ends("" if self.family is None else self.family.link, eta, half)
        ends = np.sort([self.respond(low)[0], self.respond(high)[0]], axis=0)
        name = "response" if self.family else "hazard_ratio"
        return {
            "link": eta,
            "link_se": error,
            name: mean,
            f"{name}_se": np.abs(slope) * error,
            "conf_low": ends[0],
            "conf_high": ends[1],
        }

    @property
    def quantile(self) -> float:
        """How many standard errors the limits are away."""
        upper = 0.5 + self.level / 2
        return normal_quantile(upper) if self.freedom is None else t_quantile(upper, self.freedom)

    def respond(self, eta: Array) -> tuple[Array, Array]:
        """The response at a linear predictor (m,), and its slope; as R has it, it may lie where no outcome is.

        NaN where the link has no mean.
        """
        if self.family is None:
            return np.exp(eta), np.exp(eta)
        return find_response(self.family, eta)

    def _compute_errors(self, x: Array) -> Array:
        if self.covariance is None:
            return np.full(len(x), np.nan)
        return np.asarray(np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", x, self.covariance, x), 0.0)))


def read_model(card: Mapping[str, Any], where: str, derives: bool = False) -> Study:
    """A study of one site with the model of a result; ConfigError (CO-F354) for a result without one.

    `derives`: whether it derives variables as the study did. The study's conditions do not apply.
    """
    model = card.get("model")
    parts = dict(model) if isinstance(model, Mapping) else {}
    derived, sources = parts.pop("derived", {}), parts.pop("sources", {})
    if isinstance(parts.get("cohort"), Mapping):
        parts["cohort"] = {name: value for name, value in parts["cohort"].items() if name != "where"}
    if derives:
        outcome = parse_formula(str(parts.get("formula")), tuple(parts.get("variables", {}))).outcome
        derived = {name: text for name, text in derived.items() if name != outcome}
        parts |= {"variables": {**sources, **parts.get("variables", {})}, "derive": derived}
    frame = {"name": "model", "sites": ["here"], "learner": {"name": "predict"}, "rows": {"missing": "drop"}}
    try:
        return Study.model_validate({**parts, **frame})
    except ValueError:
        cause = "has no formula" if not parts else "has no formula and variables that can be read"
        raise ConfigError(
            "CO-F354", f"{where} {cause}. Print the study's result again with `coterie study result --json`."
        ) from None


def open_predictor(
    result: Mapping[str, Any], where: str, level: float = LEVEL, label: str = "", at: Sequence[float] = ()
) -> Predictor:
    """The model of a result as `--json` prints it; ConfigError (CO-F354) for one that predicts nothing.

    `label`: the column that names each row of the file. `at`: times at which survival is predicted.
    """
    study = read_model(result, where)
    survival = open_survival(result, where, at, {name: v.levels for name, v in study.variables.items()})
    try:
        design = CovariateDesign(study, label, survival.by if survival else "")
    except StudyError as error:
        raise ConfigError("CO-F354", f"{where} holds no model that can be read: {error.message}") from None
    if not design.variables:
        raise ConfigError(
            "CO-F354", f"{where} has no covariates: it predicts the same for every row. Read its intercept."
        )
    try:
        numbers = (
            np.array([row["estimate"] for row in result["terms"]], dtype=np.float64),
            None if result.get("vcov") is None else np.array(result["vcov"], dtype=np.float64),
        )
        names = tuple(str(row["term"]) for row in result["terms"])
    except (KeyError, TypeError, ValueError):
        raise ConfigError(
            "CO-F354", f"{where} has terms or a covariance that cannot be read. Print the result again."
        ) from None
    freedom = None if result.get("statistic") == "z" else result.get("df_residual")
    family = _read_family(result, where)
    predictor = Predictor(design, *numbers, family, freedom=freedom, level=level, survival=survival)
    predictor = replace(predictor, deriving=_find_deriving(result, where, design))
    return _match_terms(predictor, names, where)


def _find_deriving(result: Mapping[str, Any], where: str, design: CovariateDesign) -> CovariateDesign | None:
    """The columns of a model, derived as the study derived them; None if nothing was, or if the result says not how."""
    if not result["model"].get("sources"):
        return None
    study = read_model(result, where, derives=True)
    deriving = CovariateDesign(study, design.label, design.stratum)
    return deriving if deriving.names == design.names else None


def _read_family(result: Mapping[str, Any], where: str) -> Family | None:
    """The family with its link; None for a Cox model."""
    if result.get("family") == COX:
        return None
    try:
        return choose_family(str(result.get("family")), str(result.get("link")))
    except StudyError:
        message = f"{where} has the family {result.get('family')!r:.40} with the link {result.get('link')!r:.40}"
        raise ConfigError("CO-F354", f"{message}, from which no row can be predicted. Name a regression.") from None


def _match_terms(predictor: Predictor, names: tuple[str, ...], where: str) -> Predictor:
    """The predictor whose coefficients are those of the columns; ConfigError if they are not."""
    columns = predictor.design.names
    if predictor.family is not None and predictor.design.outcome.type == "category":
        levels = LevelModel(predictor.design.outcome.levels, predictor.family.ordered)
        predictor = replace(predictor, levels=levels)
        columns = levels.list_terms(columns)
    elif predictor.family is None:
        columns = columns[1:]
    shape = (len(names), len(names))
    if predictor.covariance is not None and predictor.covariance.shape != shape:
        raise ConfigError("CO-F354", f"{where} has {len(names)} terms and another covariance. Print the result again.")
    if names != columns or not np.all(np.isfinite(predictor.beta)):
        missing = [name for name in columns if name not in names]
        cause = f"has no coefficient of {', '.join(missing[:5])}" if missing else "has other terms than its formula"
        remedy = "Predict from a study with one intercept for all sites, and with the result of all terms"
        raise ConfigError("CO-F354", f"{where} {cause}, so that nothing can be predicted from it. {remedy}.")
    return predictor


def _open_rows(predictor: Predictor, address: RowsAddress, site: str) -> tuple[CovariateDesign, RowSource, str]:
    """The rows with the variables of the model, or else with those from which these are derived."""
    try:
        return predictor.design, *open_source(address, predictor.design, site)
    except DataError as lacking_columns:
        if predictor.deriving is None or lacking_columns.code != "CO-D106":
            raise
        try:
            return predictor.deriving, *open_source(address, predictor.deriving, site)
        except DataError as error:
            if error.code != "CO-D106":
                raise
            text = f"{lacking_columns.message} Or give what they are derived from: {error.message}"
            raise DataError(error.code, text) from None


def predict_rows(predictor: Predictor, address: RowsAddress, site: str) -> Iterator[PredictedRows]:
    """Predictions of all rows, batch by batch; NaN for a row that lacks a value. DataError for other wrong values."""
    design, source, before = _open_rows(predictor, address, site)
    first = FirstPass(design, keep=False)
    for batch in source.batches():
        first.add(batch)
    check_unchanged(source, before)
    check_values(source, first)
    for batch in source.batches():
        coded = code_columns(batch, design)
        missing = lacking(coded, design)
        codes = {name: np.where(missing, 0.0, column.values) for name, column in coded.items()}
        x = design.raw(codes, len(missing))
        x = x if predictor.family else x[:, 1:]
        offset = codes[design.formula.offset] if design.formula.offset else np.zeros(len(missing))
        stratum = codes[design.stratum] if design.stratum else np.zeros(len(missing))
        columns = predictor.predict(x, offset) | predictor.predict_survival(x, offset, stratum)
        labels = as_text(batch[design.label]) if design.label else ()
        yield PredictedRows(labels, {name: np.where(missing, np.nan, values) for name, values in columns.items()})
    check_unchanged(source, before)
