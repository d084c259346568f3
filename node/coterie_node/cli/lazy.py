"""Commands whose modules are imported when they are used: a list of commands, or a line of help, imports nothing.

A table names for each command its module and its line of help. The group lists stand-ins that know only this line; the
command itself is imported when somebody types it, asks for its own help, or completes its options in a shell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

Table = Mapping[str, "LazyCommand | CommandGroup"]


@dataclass(frozen=True)
class LazyCommand:
    """A command: `place` is the "module:name" of its function, or of the Typer that holds it under its own name."""

    place: str
    help: str
    hidden: bool = False


@dataclass(frozen=True)
class CommandGroup:
    """A group of commands."""

    help: str
    commands: Mapping[str, LazyCommand]
    hidden: bool = False


class OwnCommand(TyperCommand):
    """A command of one function; without any option and words to read it does not import what Typer reads them with."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words that are no options."""
        return super().parse_args(ctx, args) if args or self.params else []


class LazyGroup(TyperGroup):
    """A group that imports a command's module when the command is used."""

    table: ClassVar[Table] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: _make_stand_in(name, entry) for name, entry in self.table.items()}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the group's own options, if there are any before the command: Typer imports pydantic to read them."""
        if not args or args[0].startswith("-"):
            return super().parse_args(ctx, args)
        options, self.params, self.add_help_option = self.params, [], False
        try:
            return super().parse_args(ctx, args)
        finally:
            self.params, self.add_help_option = options, True

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the words name, imported."""
        name, stand_in, rest = super().resolve_command(ctx, args)
        return name, None if stand_in is None else self.load(str(name)), rest

    def load(self, name: str) -> Any:
        """The command of this name, imported."""
        entry = self.table[name]
        if isinstance(entry, CommandGroup):
            group = get_group(make_typer(entry.help, entry.commands))
            group.name = name
            return group
        app = _import_place(entry.place)
        if not isinstance(app, typer.Typer):
            function, app = app, typer.Typer(rich_markup_mode=None)
            app.command(name, cls=OwnCommand)(function)
        return get_group(app).commands[name]


def make_typer(text: str, table: Table, **settings: Any) -> typer.Typer:
    """A Typer whose commands are those of a table; `text` is its help."""
    kind = type("TableGroup", (LazyGroup,), {"table": table})
    # Without markup: rich takes longer to import than everything else that a page of help needs.
    settings = {"no_args_is_help": True, "add_completion": False, "rich_markup_mode": None, **settings}
    # Rows or keys may stand in local variables.
    return typer.Typer(cls=kind, help=text, pretty_exceptions_show_locals=False, **settings)


def _make_stand_in(name: str, entry: LazyCommand | CommandGroup) -> TyperCommand:
    return TyperCommand(name, help=entry.help, hidden=entry.hidden)


def _import_place(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
