"""A demo is one module with a learner's name: it is found by being there."""

from __future__ import annotations

import pytest

from coterie_learners.core.registry import list_learners
from coterie_node.demo.cases import find_case, list_cases
from coterie_node.errors import ConfigError


def test_a_module_with_a_learner_s_name_is_its_demo() -> None:
    assert {"cola", "cox", "glore", "secure_cola", "secure_lasso", "survival_curves", "valoris", "vertigo"} <= set(
        list_cases()
    )
    assert set(list_cases()) <= set(list_learners())
    for learner in list_cases():
        case = find_case(learner)
        assert f'name = "{learner}"' in case.study_text(case.site_names(case.sites))


def test_a_module_that_several_demos_share_is_no_demo() -> None:
    with pytest.raises(ConfigError, match=r"The demo has no learner 'nhefs'\. Name one of cola, cox, glore"):
        find_case("nhefs")
