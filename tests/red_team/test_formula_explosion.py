"""A short study document cannot make who reads it work without end: formulas are counted before they are expanded."""

from __future__ import annotations

import pytest
from support.learners import cohorts

from coterie_learners.errors import StudyError
from coterie_learners.study.formula import MAX_COLUMNS, parse_formula

NAMES = [f"v{k}" for k in range(2000)]
WIDE = {"type": "category", "levels": [f"l{k}" for k in range(50)]}
FORMULAS = {
    "one product": "y ~ " + "*".join(NAMES[:200]),
    "many products": "y ~ " + " + ".join("*".join(NAMES[k : k + 10]) for k in range(0, 500, 10)),
    "many terms": "y ~ " + " + ".join(NAMES[:1000]) + " + " + " + ".join(f"v0:{name}" for name in NAMES[1:1002]),
}


@pytest.mark.parametrize("text", FORMULAS.values(), ids=FORMULAS)
def test_a_formula_of_too_many_terms_is_refused(text: str) -> None:
    with pytest.raises(StudyError, match="Use a shorter"):
        parse_formula(text)


@pytest.mark.parametrize("formula", ["died ~ a:b:c:d:e:f", "died ~ a*b*c*d*e*f", "died ~ 0 + a:b"])
def test_a_product_of_wide_categories_is_refused_before_it_is_built(formula: str) -> None:
    with pytest.raises(StudyError, match=f"the limit is {MAX_COLUMNS}|more than {MAX_COLUMNS}"):
        cohorts.study(formula, variables=dict.fromkeys("abcdef", WIDE))


def test_a_formula_at_the_limit_is_read() -> None:
    assert len(parse_formula("y ~ " + "*".join(NAMES[:10])).terms) == 2**10 - 1
