"""Estimators of ensembles: scikit-learn's, XGBoost's where it is installed, and those of other packages.

An entry point in the group `coterie.estimators` has as its value a function from a seed to an object with `fit(x, y)`
and `predict_proba(x)`, as scikit-learn has them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, Protocol

from coterie_learners.numeric.array import Array
from coterie_node.errors import ConfigError

ESTIMATOR_GROUP = "coterie.estimators"


class Estimator(Protocol):
    """What learns an outcome of 0 and 1 from columns."""

    def fit(self, x: Array, y: Array) -> Any:
        """Learn from rows x (n, p) with outcomes y (n,)."""

    def predict_proba(self, x: Array) -> Array:
        """Chances (m, 2) of outcome 0 and of outcome 1."""


def make_estimator(name: str, seed: int) -> Estimator:
    """A new estimator; ConfigError (CO-F363) if there is none of this name, or its package is missing."""
    try:
        if name in BUILT_IN:
            return BUILT_IN[name](seed)
        entry = next(iter(entry_points(group=ESTIMATOR_GROUP, name=name)), None)
        if entry is not None:
            estimator: Estimator = entry.load()(seed)
            return estimator
    except ImportError as error:
        message = f"The estimator {name} needs the package {error.name}"
        raise ConfigError(
            "CO-F363", f"{message}. Install it: `pip install coterie[experiment] {error.name}`."
        ) from None
    others = [entry.name for entry in entry_points(group=ESTIMATOR_GROUP)]
    raise ConfigError("CO-F363", f"There is no estimator {name!r}. Installed: {', '.join([*BUILT_IN, *others])}.")


def fit_quietly(estimator: Estimator, x: Array, y: Array) -> None:
    """Fit without the package's advice about its own rounds: an ensemble takes what they give."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(x, y)


def _make_logistic(seed: int) -> Estimator:
    """Logistic regression with scikit-learn's own ridge, on standardised columns."""
    from sklearn.linear_model import LogisticRegression

    return _standardise_first(LogisticRegression(max_iter=1000, random_state=seed))


def _make_mlp(seed: int) -> Estimator:
    """A perceptron with one hidden layer of 16 units, on standardised columns; L-BFGS suits some hundred rows."""
    from sklearn.neural_network import MLPClassifier

    return _standardise_first(MLPClassifier((16,), solver="lbfgs", alpha=10.0, max_iter=300, random_state=seed))


def _make_xgboost(seed: int) -> Estimator:
    """Gradient-boosted trees."""
    from importlib import import_module

    trees: Estimator = import_module("xgboost").XGBClassifier(n_jobs=1, random_state=seed)
    return trees


def _standardise_first(estimator: Any) -> Estimator:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline: Estimator = make_pipeline(StandardScaler(), estimator)
    return pipeline


BUILT_IN: dict[str, Callable[[int], Estimator]] = {
    "logistic": _make_logistic,
    "mlp": _make_mlp,
    "xgboost": _make_xgboost,
}
