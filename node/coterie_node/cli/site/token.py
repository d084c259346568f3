"""`coterie token`: bearer tokens of this site's HTTP API. A token is printed once; the node keeps its digest."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from coterie_node.cli.options import Json, NodeOption, open_node_folder
from coterie_node.cli.output import print_document, print_rows
from coterie_node.persons.roles import Role
from coterie_node.web.api.tokens import TOKENS, ApiToken, TokenFile

token = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Tokens of this site's HTTP API.")

Scopes = Annotated[list[Role], typer.Option("--scope", help="A scope of the token; may be given again.")]
Days = Annotated[int, typer.Option("--days", help="Days until it ends: 1 to 366.")]


@token.command("create")
def create_token_command(
    name: Annotated[str, typer.Argument(help="User of the token, a person or a program; stored with each act.")],
    scope: Scopes,
    days: Days = 30,
    node: NodeOption = None,
    as_json: Json = False,
) -> None:
    """Make a token and print it: nobody can read it again."""
    made, text = open_tokens(node).create(name, tuple(scope), days, time.time())
    _note(node, "token made", f"{made.id} {name}: {', '.join(scope)}")
    until = f"It ends at {format_time(made.expires)}; `coterie token revoke {made.id}` ends it at once."
    print_document(_describe(made) | {"token": text}, f"{text}\n{until}", as_json)


@token.command("list")
def list_tokens_command(node: NodeOption = None, as_json: Json = False) -> None:
    """List the tokens by their IDs, with their scopes and ends; never the tokens themselves."""
    rows = [_describe(item) for item in open_tokens(node).list_all()]
    print_rows(rows, as_json, ("id", "name", "scopes", "created", "expires", "state"))


@token.command("revoke")
def revoke_token_command(
    digits: Annotated[str, typer.Argument(metavar="ID", help="The eight digits that `token list` shows.")],
    node: NodeOption = None,
) -> None:
    """End a token at once."""
    item = open_tokens(node).revoke(digits)
    _note(node, "token revoked", f"{item.id} {item.name}")
    print(f"Revoked: {item.id}, {item.name}.")


def open_tokens(node: Any) -> TokenFile:
    """The tokens of this site's node."""
    return TokenFile(open_node_folder(node).root / TOKENS)


def _note(node: Any, act: str, subject: str) -> None:
    """Write into the site's log of acts what was done with a token."""
    open_node_folder(node).persons.log.append(act, "", subject, int(time.time()))


def format_time(seconds: int) -> str:
    """A time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _describe(item: ApiToken) -> dict[str, Any]:
    state = "ended" if item.expires <= time.time() else "counts"
    times = {"created": format_time(item.created), "expires": format_time(item.expires)}
    return {"id": item.id, "name": item.name, "scopes": ", ".join(item.scopes), **times, "state": state}
