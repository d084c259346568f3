"""The table of forms is the one of the docs, and each of its codes is explained."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from coterie_node.cli.main import app
from coterie_node.error_codes import load_codes
from coterie_node.upgrade.formats import list_forms

PAGE = Path(__file__).parents[3] / "docs" / "upgrade.md"


def test_the_docs_have_the_table_of_this_release() -> None:
    lines = [re.split(r" *\| *", line.strip("| ")) for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    table = {name: (version, reads, otherwise) for name, version, reads, otherwise in lines[1:]}
    forms = [form for form in list_forms() if not form.name.startswith("learner ")]
    expected = {f.name: (f.version, f.reads, f.otherwise + (f" (`{f.code}`)" if f.code else "")) for f in forms}
    assert {name: row for name, row in table.items() if name != "learner"} == expected


def test_each_code_of_the_table_is_explained() -> None:
    assert {form.code for form in list_forms() if form.code} <= set(load_codes())


def test_the_command_prints_every_form_and_every_learner() -> None:
    done = CliRunner().invoke(app, ["forms"])
    assert done.exit_code == 0
    assert all(f"{form.name} " in done.stdout and form.version in done.stdout for form in list_forms())
