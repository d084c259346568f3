"""A study: read from what people write, frozen, hashed the same everywhere, refused in words."""

from __future__ import annotations

import hashlib
import json

import pytest
from pydantic import ValidationError

from coterie_learners.core.registry import complete_study, find_learner, learner_of, options_of
from coterie_learners.errors import StudyError
from coterie_learners.glore.glore import GLORE, GloreOptions
from coterie_learners.study.document import Schedule, Study

TOML = """
format = 1
name = "mi-2026"
title = "Myocardial infarction, Größe"
sites = ["north", "south", "east"]
formula = "died ~ age + sex"

[variables.died]
type = "binary"
[variables.age]
type = "number"
unit = "years"
range = [18, 110]
[variables.sex]
type = "category"
levels = ["female", "male"]

[learner]
name = "glore"
ridge = 0.5

[rows]
missing = "drop"

[ledger]
step_seconds = 600
"""
# The same study, keys and sections in another order.
TURNED = """
learner = { ridge = 0.5, name = "glore" }
ledger = { step_seconds = 600 }
rows = { missing = "drop" }
formula = "died ~ age + sex"
sites = ["north", "south", "east"]
title = "Myocardial infarction, Größe"
name = "mi-2026"
variables.sex = { levels = ["female", "male"], type = "category" }
variables.age = { range = [18.0, 110.0], unit = "years", type = "number" }
variables.died = { type = "binary" }
"""


MANY = TOML.replace(
    'formula = "died ~ age + sex"',
    'models = [{ name = "crude", formula = "died ~ sex" }, { name = "full", formula = "died ~ age + sex", ridge = 1 }]',
)


def test_a_study_of_several_models_has_one_hash_and_a_study_for_each() -> None:
    study = complete_study(Study.from_toml(MANY))
    assert Study.from_json(study.document) == study
    assert b'"formula":""' not in study.document
    assert complete_study(study).hash == study.hash
    crude, full = study.by_model.values()
    assert (crude.formula, crude.learner.options["ridge"]) == ("died ~ sex", 0.5)
    assert (full.formula, full.learner.options["ridge"], full.models) == ("died ~ age + sex", 1.0, ())
    assert Study.from_json(full.document).hash == full.hash
    assert complete_study(Study.from_toml(MANY.replace("ridge = 1 ", "ridge = 2 "))).hash != study.hash
    assert b"models" not in complete_study(Study.from_toml(TOML)).document


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("sites = [", 'formula = "died ~ age"\nsites = [', "and not both"),
        ("models = [", "models = [] # [", "and not both"),
        ('"full"', '"crude"', "named twice: ['crude']"),
        ('"full"', '"Full"', "models.1.name"),
        ('"full"', '"1st"', "models.1.name"),
    ],
)
def test_models_that_are_no_list_of_models_are_refused(old: str, new: str, word: str) -> None:
    assert word in refusal("CO-S102", MANY.replace(old, new))


def refusal(code: str, text: str) -> str:
    with pytest.raises(StudyError) as caught:
        complete_study(Study.from_toml(text, "mi.toml"))
    assert caught.value.code == code
    return caught.value.message


def change_text(old: str, new: str) -> str:
    assert old in TOML
    return TOML.replace(old, new)


# Reading and hashing


def test_a_study_has_the_values_that_its_people_wrote() -> None:
    study = Study.from_toml(TOML)
    assert study.sites == ("north", "south", "east")
    assert study.variables["age"].bounds == (18.0, 110.0)
    assert study.variables["died"].bounds == (0.0, 1.0)
    assert study.learner.options == {"ridge": 0.5}
    assert (study.rows.missing, study.rows.minimum) == ("drop", 5)
    assert (study.ledger.step_seconds, study.ledger.silent_site) == (600, "wait")


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert complete_study(Study.from_toml(TOML)).hash == complete_study(Study.from_toml(TURNED)).hash


def test_the_document_is_canonical_json_and_the_hash_its_sha_256() -> None:
    study = complete_study(Study.from_toml(TOML))
    assert study.document.decode() == json.dumps(
        json.loads(study.document), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    assert "Größe" in study.document.decode()
    assert study.hash == hashlib.sha256(study.document).digest()


def test_the_hash_of_this_study_never_changes() -> None:
    """A stored value: whoever changes it makes all studies on all ledgers unreadable."""
    study = complete_study(Study.from_toml(TOML))
    assert study.hash.hex() == "73c3e6cc36274e4b4342d60359bad0cb88843c163f5d2cdc51e0aa5e84ac5905"
    fourth = study.document.replace(b'"version":"5"', b'"version":"4"')
    assert hashlib.sha256(fourth).hexdigest() == "b9f6d2d9da2a33aecd1b6304a3eafdf1ef930748e0d3720b60618f149ec416f9"
    third = study.document.replace(b'"version":"5"', b'"version":"3"')
    assert hashlib.sha256(third).hexdigest() == "8f2d4f35079003c6e66bb2261e8006118d9251b71e69c0dd5b39476ab4bc289b"
    second = study.document.replace(b'"version":"5"', b'"version":"2"')
    assert hashlib.sha256(second).hexdigest() == "3d521e276913afbea8e6b9ad21010b08b67d01c03a60fe703b280635395a0c72"
    older = study.document.replace(b'"version":"5"', b'"version":"1"').replace(b'"opening":"counts",', b"")
    assert hashlib.sha256(older).hexdigest() == "3ddaa77df69f6dbadc81e513419181d618b83894bde6a505fc753d81c928bc7a"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"mi-2026"', '"mi-2027"'),
        ('"north", "south"', '"south", "north"'),
        ("age + sex", "sex + age"),
        ("110", "111"),
        ('"female", "male"', '"male", "female"'),
        ("0.5", "0.25"),
        ('"drop"', '"refuse"'),
        ("600", "601"),
        ("years", "months"),
    ],
)
def test_everything_that_the_result_depends_on_is_in_the_hash(old: str, new: str) -> None:
    assert complete_study(Study.from_toml(change_text(old, new))).hash != complete_study(Study.from_toml(TOML)).hash


def test_a_study_cannot_be_changed_once_it_is_read() -> None:
    study = Study.from_toml(TOML)
    with pytest.raises(ValidationError):
        study.name = "other"


# Completion and pinning


def test_options_that_were_left_out_are_written_out_with_the_version() -> None:
    study = complete_study(Study.from_toml(TOML))
    assert study.learner.version == GLORE.version
    assert study.learner.options == {**GloreOptions().model_dump(), "ridge": 0.5}
    assert complete_study(study).hash == study.hash


def test_a_study_that_pins_another_version_is_refused() -> None:
    cause = refusal("CO-S402", change_text('name = "glore"', 'name = "glore"\nversion = "0"'))
    assert "pins glore 0; installed is 5" in cause
    with pytest.raises(StudyError, match=r"\(no version\)"):
        learner_of(Study.from_toml(TOML))


def test_an_unknown_learner_is_refused_with_those_that_there_are() -> None:
    cause = refusal("CO-S401", change_text('name = "glore"', 'name = "glorious"'))
    assert "'glorious'" in cause
    assert "glore" in cause.split("Installed:")[1]


def test_the_entry_point_leads_to_the_learner() -> None:
    assert find_learner("glore") is GLORE


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ("ridge = -1", "ridge"),
        ("ridge = inf", "ridge"),
        ("max_rounds = 0", "max_rounds"),
        ("max_rounds = 2.5", "max_rounds"),
        ("tolerance = 0", "tolerance"),
        ("toleranse = 1e-8", "toleranse"),
        ('aggregation = "secret"', "aggregation"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(option: str, word: str) -> None:
    assert f"'{word}'" in refusal("CO-S404", change_text("ridge = 0.5", option))


def test_an_unknown_family_is_refused_with_those_that_there_are() -> None:
    cause = refusal("CO-S303", change_text("ridge = 0.5", 'family = "beta"'))
    assert "'beta'" in cause
    assert "gaussian" in cause


def test_options_are_read_in_the_learners_own_type() -> None:
    assert options_of(Study.from_toml(TOML), GloreOptions).ridge == 0.5


# Validation in words


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "mi-2026"', 'name = "MI 2026"', ["name"]),
        ('name = "mi-2026"', "", ["name: this key is needed"]),
        ('["north", "south", "east"]', "[]", ["sites"]),
        ('["north", "south", "east"]', '["north", "south", "north"]', ["named twice", "'north'"]),
        ('["north", "south", "east"]', '["North"]', ["sites.0"]),
        ('["north", "south", "east"]', '["../etc"]', ["sites.0"]),
        ('["north", "south", "east"]', '["=cmd"]', ["sites.0"]),
        ('["north", "south", "east"]', json.dumps([f"s{k}" for k in range(254)]), ["sites", "253"]),
        ('"binary"', '"boolean"', ["variables.died.type"]),
        ("range = [18, 110]", "", ["variables.age", "needs range = [low, high]"]),
        ("range = [18, 110]", "range = [110, 18]", ["variables.age", "low < high"]),
        ("range = [18, 110]", "range = [18, 18]", ["variables.age", "low < high"]),
        ("range = [18, 110]", "range = [18, inf]", ["variables.age.range"]),
        ("range = [18, 110]", "range = [nan, 1]", ["variables.age.range"]),
        ("range = [18, 110]", "range = [18]", ["variables.age.range"]),
        ("range = [18, 110]", 'range = [18, 110]\nlevels = ["a", "b"]', ["only a category has levels"]),
        ('type = "binary"', 'type = "binary"\nrange = [0, 1]', ["only a number or count has a range"]),
        ('["female", "male"]', '["female"]', ["variables.sex", "two different levels"]),
        ('["female", "male"]', '["female", "female"]', ["variables.sex", "two different levels"]),
        ('["female", "male"]', r'["female", "ma\u001ble"]', ["variables.sex.levels.1"]),
        ("[variables.age]", '[variables."age at entry"]', ["variables.age at entry", "rename the column"]),
        ('name = "mi-2026"', 'name = "M I"', ["name: it takes lower-case letters, digits and dashes"]),
        ("[variables.age]", '[variables."=1+1"]', ["variables.=1+1"]),
        ("format = 1", "format = 2", ["format"]),
        ("format = 1", "color = 2", ["color: there is no such key here"]),
        ('missing = "drop"', 'missing = "impute"', ["rows.missing"]),
        ('missing = "drop"', "minimum = 0", ["rows.minimum"]),
        ("step_seconds = 600", "step_seconds = 1", ["ledger.step_seconds", "60"]),
        ("step_seconds = 600", 'silent_site = "ignore"', ["ledger.silent_site"]),
        ('[learner]\nname = "glore"', "[learner]", ["learner.name"]),
    ],
)
def test_a_wrong_study_is_refused_with_the_key_and_the_reason(old: str, new: str, words: list[str]) -> None:
    cause = refusal("CO-S102", change_text(old, new))
    assert cause.startswith("mi.toml is not a study: ")
    assert [word for word in words if word not in cause] == []


def test_many_mistakes_are_reported_five_at_a_time() -> None:
    cause = refusal("CO-S102", "a = 1\nb = 1\nc = 1\nd = 1\n")
    assert "and 4 more" in cause


@pytest.mark.parametrize("text", ["name = ", "name = 'a'\nname = 'b'", "[", "\x00"])
def test_what_is_no_toml_is_refused_with_its_place(text: str) -> None:
    assert "mi.toml is not TOML" in refusal("CO-S101", text)


# From the ledger


def test_the_canonical_document_gives_the_same_study_back() -> None:
    study = complete_study(Study.from_toml(TOML))
    assert Study.from_json(study.document).hash == study.hash
    assert Study.from_json(study.document) == study


def respell(document: bytes) -> list[bytes]:
    """The same study in other bytes."""
    value = json.loads(document)
    return [
        json.dumps(value, sort_keys=True).encode(),
        json.dumps(value, sort_keys=True, separators=(",", ":")).encode(),
        json.dumps(dict(reversed(value.items())), separators=(",", ":"), ensure_ascii=False).encode(),
        document + b"\n",
        document.replace(b"18.0", b"18"),
        document.replace(b'"format":1', b'"format":1,"format":1'),
        document.replace(b'"title"', b'"titl\\u0065"'),
    ]


def test_any_other_spelling_of_a_document_is_refused() -> None:
    document = complete_study(Study.from_toml(TOML)).document
    for spelling in respell(document):
        assert spelling != document
        with pytest.raises(StudyError) as caught:
            Study.from_json(spelling)
        assert caught.value.code == "CO-S103"


@pytest.mark.parametrize("document", [b"", b"{}", b"[1]", b"\xff", b"[" * 50_000, b'{"name":NaN}'])
def test_a_document_that_is_no_study_is_refused(document: bytes) -> None:
    with pytest.raises(StudyError) as caught:
        Study.from_json(document, "block 7")
    assert caught.value.code == "CO-S102"
    assert "block 7 is not a study" in caught.value.message


def test_a_document_that_leaves_out_what_has_a_default_is_refused() -> None:
    short = {k: v for k, v in json.loads(Study.from_toml(TOML).document).items() if k != "rows"}
    with pytest.raises(StudyError, match="canonical"):
        Study.from_json(json.dumps(short, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


def test_a_document_above_a_megabyte_is_refused_unread() -> None:
    with pytest.raises(StudyError, match="canonical"):
        Study.from_json(b" " * (1 << 20) + Study.from_toml(TOML).document)


# What GLORE refuses


@pytest.mark.parametrize(
    ("old", "new", "code", "word"),
    [
        ("died ~ age", "age ~ died", "CO-S301", "type binary"),
        ("ridge = 0.5", 'family = "poisson"', "CO-S301", "type count"),
        ("ridge = 0.5", 'family = "gaussian"', "CO-S301", "number or count"),
        ("ridge = 0.5", 'link = "inverse"', "CO-S303", "its links are logit, probit, cloglog"),
        ("ridge = 0.5", 'family = "gamma"', "CO-S301", "number or count"),
        ("ridge = 0.5", 'weights = "sex"', "CO-S204", "weighs"),
        ("ridge = 0.5", 'weights = "weight"', "CO-S202", "[variables.weight]"),
        ("ridge = 0.5", "firth = true\nrobust = true", "CO-S324", "firth"),
        ("ridge = 0.5", 'robust = "patient"', "CO-S324", "patient"),
        ("died ~ age", "died ~ weight", "CO-S202", "[variables.weight]"),
        ("died ~ age + sex", "died ~ died", "CO-S204", "outcome"),
        ("died ~ age + sex", "died ~ sex^2", "CO-S205", "sex^2"),
    ],
)
def test_a_study_that_the_learner_cannot_run_is_refused(old: str, new: str, code: str, word: str) -> None:
    assert word in refusal(code, change_text(old, new))


def test_masks_need_three_sites() -> None:
    two = change_text('"south", "east"', '"south"').replace("ridge = 0.5", 'aggregation = "masked"')
    assert "each the other's share" in refusal("CO-S305", two)


def test_counts_are_never_negative() -> None:
    text = TOML.replace('type = "binary"', 'type = "count"\nrange = [-1, 9]')
    assert "begins below 0" in refusal("CO-S302", text.replace("ridge = 0.5", 'family = "poisson"'))


def test_the_schedule_has_an_opening_of_masked_sums_and_leaves_rounds_for_the_test_and_for_exclusions() -> None:
    study = complete_study(Study.from_toml(change_text("ridge = 0.5", "max_rounds = 7")))
    loop, rounds = ("each", "server"), 7 + len(study.sites)
    assert GLORE.schedule(study) == Schedule(
        opening=("each", "each", "each"), loop=loop, closing=("server",), max_rounds=rounds
    )
    plain = study.model_copy(update={"learner": study.learner.model_copy(update={"aggregation": "plain"})})
    assert GLORE.schedule(plain) == Schedule(loop=loop, closing=("server",), max_rounds=rounds)
