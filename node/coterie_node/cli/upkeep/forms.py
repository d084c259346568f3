"""`coterie forms`."""

from __future__ import annotations

from importlib.metadata import version

from coterie_node.cli.options import Json
from coterie_node.cli.output import print_document


def forms_command(as_json: Json = False) -> None:
    """Print in which forms this release meets other releases, and what it does with another version of each."""
    from coterie_node.upgrade.formats import list_forms

    table = list_forms()
    lines = [f"coterie {version('coterie')}"]
    lines += [f"{form.name:24} {form.version:18} reads {form.reads}; any other: {form.otherwise}" for form in table]
    plain = {"version": version("coterie"), "forms": [form.as_dict() for form in table]}
    print_document(plain, "\n".join(lines), as_json)
