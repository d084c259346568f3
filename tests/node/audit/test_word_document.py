"""A table as a Word document has the cells of every other format, and is written into a new file alone."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import docx
import pytest
from typer.testing import CliRunner

from coterie_node.audit.printed.printed_table import PrintedTable
from coterie_node.audit.printed.word_document import save_word_document
from coterie_node.cli.main import app
from coterie_node.errors import ConfigError

TABLE = PrintedTable(
    ("", "Overall", "sex[f]"), (("n", "12", "5"), ("age: mean (SD)", "", ""), ("  <40 & more", "3", "..."))
)
RESULT = {
    "study": "stay",
    "family": "binomial",
    "link": "logit",
    "terms": [{"term": name, "estimate": 1.0, "std_error": 1.0} for name in ("(Intercept)", "x")],
    "vcov": [[1.0, 0.0], [0.0, 1.0]],
    "details": {"tests": [{"term": "x", "df": 1, "statistic": 1.0, "p": 0.3173}]},
}


def test_the_document_has_title_cells_and_remarks(tmp_path: Path) -> None:
    path = tmp_path / "table.docx"
    save_word_document(path, "wards: TABLE_ONE", TABLE, ["Quantiles are of bins.\x07"])
    document = docx.Document(str(path))
    rows = [tuple(cell.text for cell in row.cells) for row in document.tables[0].rows]
    assert rows == [tuple(cell.strip() for cell in line) for line in (TABLE.head, *TABLE.lines)]
    assert [p.text for p in document.paragraphs] == ["wards: TABLE_ONE", r"Quantiles are of bins.\x07"]
    assert document.core_properties.author == ""
    indents = [row.cells[0].paragraphs[0].paragraph_format.left_indent for row in document.tables[0].rows]
    assert [indent is not None for indent in indents] == [False, False, False, True]
    assert zipfile.ZipFile(path).testzip() is None


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "table.docx"
    path.write_text("mine")
    with pytest.raises(ConfigError) as error:
        save_word_document(path, "", TABLE)
    assert (error.value.code, path.read_text()) == ("CO-F205", "mine")


@pytest.mark.parametrize("words", [("contrast", "(Intercept) + x"), ("anova",)])
def test_tables_of_tests_come_in_every_format(words: tuple[str, ...], tmp_path: Path) -> None:
    source, path = tmp_path / "result.json", tmp_path / "tests.docx"
    source.write_text(json.dumps(RESULT))
    command = ["study", words[0], str(source), *words[1:]]
    refused = CliRunner().invoke(app, [*command, "--format", "docx"])
    assert refused.exit_code == 2
    assert CliRunner().invoke(app, [*command, "--format", "docx", "--out", str(path)]).exit_code == 0
    head, line = docx.Document(str(path)).tables[0].rows
    assert line.cells[0].text in ("x", "(Intercept) + x")
    for shape in ("csv", "markdown", "latex", "html"):
        printed = CliRunner().invoke(app, [*command, "--format", shape]).output
        assert all(cell.text in printed for cell in line.cells if cell.text.isalnum())
    assert "statistic" in [cell.text for cell in head.cells]
