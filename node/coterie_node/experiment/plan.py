"""The experiment as people write it (TOML): data, formula, splits, models, trials, and what separation leads to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, ValidationError, model_validator

from coterie_learners.core.registry import complete_study
from coterie_learners.study.document import MAX_DOCUMENT, ColumnName, Frozen, Name, Study, Text, Variable
from coterie_learners.study.formula import parse_formula
from coterie_learners.study.toml_text import parse_toml
from coterie_node.data.files.bounded_file import read_bounded_text
from coterie_node.errors import ConfigError

ModelKind = Literal[
    "siloed_rows",
    "siloed_columns",
    "centralised",
    "glore",
    "vertigo",
    "valoris",
    "ensemble_rows",
    "ensemble_columns",
]
EVERY_KIND: tuple[ModelKind, ...] = get_args(ModelKind)
COLUMN_MODELS = frozenset({"siloed_columns", "vertigo", "valoris", "ensemble_columns"})
ALL_ROWS = "pool"
MOST_TRIALS = 10_000


class SiteSplit(Frozen):
    """How rows are split over sites: `sites` equal shares with `stratify` alike in all, or `by` a column's levels."""

    sites: Annotated[int, Field(ge=2, le=50)] = 3
    stratify: tuple[ColumnName, ...] = ()
    by: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,63})?$")] = ""


class ExperimentPlan(Frozen):
    """One experiment.

    data: a file, a public data set's name, or a file for each site. test_share of the rows, stratified by the outcome,
    is left out of every fit and scored. separation: what a fit does whose rows separate the outcome or are collinear:
    with the ridge `penalty`, with Firth's penalty, or nothing, and the trial is counted. ridge: a penalty of all fits.
    learner: options of GLORE. columns: the variables of each site where columns are split.
    """

    name: Name
    title: Text = ""
    data: Text | dict[Name, Text]
    formula: Annotated[str, Field(max_length=10_000, pattern=r"^[\x20-\x7e\t\r\n]*$")]
    variables: dict[ColumnName, Variable]
    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 30
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 1
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    separation: Literal["ridge", "firth", "skip"] = "ridge"
    penalty: Annotated[float, Field(gt=0)] = 1.0
    ridge: Annotated[float, Field(ge=0)] = 0.0
    models: tuple[ModelKind, ...] = ()
    estimators: tuple[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,30}$")], ...] = ("logistic", "mlp")
    rows: SiteSplit = SiteSplit()
    columns: dict[Name, tuple[ColumnName, ...]] = Field(default_factory=dict)
    learner: dict[ColumnName, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_models(self) -> Self:
        wrong = sorted(COLUMN_MODELS & set(self.models))
        if wrong and not self.columns:
            raise ValueError(f"{', '.join(wrong)} need [columns]: which site has which variables")
        if len(set(self.models)) != len(self.models):
            raise ValueError("`models` names one twice")
        if self.rows.by and self.variables.get(self.rows.by, None) is None:
            raise ValueError(f"`rows.by` names {self.rows.by!r}, which is no declared variable")
        if self.rows.by and self.variables[self.rows.by].type != "category":
            raise ValueError(f"`rows.by` names {self.rows.by!r}, which is no category")
        if self.rows.by and isinstance(self.data, dict):
            raise ValueError("`rows.by` and a file for each site are two splits of rows; choose one")
        return self

    @property
    def kinds(self) -> tuple[ModelKind, ...]:
        """The models to fit: those that are named, or all that the splits allow."""
        return self.models or tuple(kind for kind in EVERY_KIND if self.columns or kind not in COLUMN_MODELS)

    @property
    def outcome(self) -> str:
        """The formula's outcome."""
        return parse_formula(self.formula, tuple(self.variables)).outcome

    @property
    def split_variables(self) -> tuple[str, ...]:
        """Variables that the splits of rows look at, beside the outcome."""
        return tuple(dict.fromkeys((*self.rows.stratify, *([self.rows.by] if self.rows.by else []))))

    @cached_property
    def key(self) -> str:
        """SHA-256 of all that a trial's result depends on; the number of trials is no part of it."""
        plain = self.model_dump(mode="json", exclude={"trials", "title"})
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    def study_of_rows(self, sites: Sequence[str], options: dict[str, Any], formula: str = "") -> Study:
        """GLORE on rows at these sites, one or more; `formula` in place of the plan's."""
        return self._complete(formula, {"sites": sites, "learner": {"name": "glore", **self._options, **options}})

    def study_of_columns(self, learner: str, options: dict[str, Any]) -> Study:
        """A learner of split columns, on the plan's columns."""
        ridge = {"ridge": self.ridge} if self.ridge else {}
        parts = {
            "sites": tuple(self.columns),
            "columns": self.columns,
            "identifier": ("row",),
            "disclosure": {"rebuild": "allow"},
            "learner": {"name": learner, **ridge, **options},
        }
        return self._complete("", parts)

    @property
    def base(self) -> Study:
        """The study by which the files are read: complete rows of all variables that models and splits need."""
        rules = {"missing": "drop", "constant": "allow", "collinear": "allow", "minimum": 1}
        extra = {"complete": self.split_variables}
        return self._complete("", {"sites": (ALL_ROWS,), "learner": {"name": "glore"}, "rows": rules, "cohort": extra})

    @property
    def _options(self) -> dict[str, Any]:
        return {**({"ridge": self.ridge} if self.ridge else {}), **self.learner}

    def _complete(self, formula: str, parts: dict[str, Any]) -> Study:
        plain = {"name": self.name, "formula": formula or self.formula, "variables": self.variables, **parts}
        try:
            return complete_study(Study.model_validate(plain))
        except ValidationError as error:
            raise explain_plan(error, "The experiment") from None


def read_plan(path: Path) -> ExperimentPlan:
    """An experiment from its file; ConfigError (CO-F361) names the key and the value that are wrong."""
    try:
        return ExperimentPlan.model_validate(parse_toml(read_bounded_text(path, MAX_DOCUMENT)))
    except OSError as error:
        raise ConfigError("CO-F361", f"{path} cannot be read: {error.strerror}. Check the path.") from None
    except ValidationError as error:
        raise explain_plan(error, str(path)) from None
    except ValueError as error:
        raise ConfigError("CO-F361", f"{path} is no experiment: {error}. Correct the file.") from None


def explain_plan(error: ValidationError, where: str) -> ConfigError:
    """What is wrong with an experiment, by key."""
    parts = [f"{'.'.join(map(str, e['loc'])) or 'experiment'}: {e['msg']}" for e in error.errors()[:5]]
    return ConfigError("CO-F361", f"{where} is no experiment: {'; '.join(parts)}. Correct the file.")
