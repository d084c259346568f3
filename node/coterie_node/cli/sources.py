"""`coterie data redcap|omop`: what a dictionary and a definition become, for people to read before they use them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coterie_learners.errors import DataError
from coterie_node.cli.options import Json
from coterie_node.cli.output import print_document


def redcap_command(
    dictionary: Annotated[Path, typer.Argument(help="The project's data dictionary (CSV), downloaded from REDCap.")],
    as_json: Json = False,
) -> None:
    """Print what the data dictionary of a REDCap project says of a study's variables: types, levels, ranges, labels."""
    from coterie_node.data.findings import FileOrigin
    from coterie_node.data.redcap.dictionary import read_dictionary
    from coterie_node.data.redcap.variables import write_variables

    text = write_variables(read_dictionary(FileOrigin.of("here", dictionary)))
    print_document({"variables": text}, text, as_json)


def omop_command(
    mapping: Annotated[Path, typer.Argument(help="A mapping with an [omop] definition.")],
    dialect: Annotated[
        str, typer.Option(help="postgresql, mariadb, duckdb, sqlite, mssql or oracle. Default: that of `database`.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Print the SQL of a mapping's OMOP definition for a kind of database; nothing is run."""
    from coterie_node.data.mapping.document import read_mapping
    from coterie_node.data.omop.omop_table import write_query

    source = read_mapping(mapping, "here").omop
    if source is None:
        raise DataError("CO-D170", f"{mapping} has no [omop] definition. Name a mapping that has one.")
    text = write_query(source, dialect or source.kind)
    print_document({"omop": source.digest, "sql": text}, text, as_json)
