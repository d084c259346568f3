"""`coterie token`: a token is printed once, listed without its secret, and ended at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.node.commands import refusal, run
from support.node.houses import make_node_folder

from coterie_node.persons.roles import Role
from coterie_node.web.api.tokens import DAY, MAX_TOKENS, TOKENS, Refused, TokenFile


def test_a_token_is_printed_once_listed_without_its_secret_and_ended(tmp_path: Path) -> None:
    node = ("--node", make_node_folder(tmp_path / "north", "north").root)
    words = ("token", "create", "A report", "--scope", "read", "--scope", "audit", "--days", 2, *node)
    made = json.loads(run(*words, "--json"))
    tokens = TokenFile(tmp_path / "north" / TOKENS)
    assert tokens.check(made["token"], 0.0).scopes == (Role.AUDIT, Role.READ)
    (row,) = json.loads(run("token", "list", *node, "--json"))
    assert (row["name"], row["scopes"], row["state"]) == ("A report", "audit, read", "counts")
    assert made["token"].rpartition("_")[2] not in run("token", "list", *node)
    assert run("token", "revoke", made["id"], *node) == f"Revoked: {made['id']}, A report.\n"
    with pytest.raises(Refused):
        tokens.check(made["token"], 0.0)
    assert refusal("token", "revoke", made["id"], *node).code == "CO-H133"
    assert refusal("token", "create", "x", "--scope", "read", "--days", 0, *node).code == "CO-H131"
    assert refusal("token", "create", "a\nb", "--scope", "read", *node).code == "CO-H131"


def test_tokens_that_ended_make_room_and_too_many_are_refused(tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path / TOKENS)
    for _ in range(MAX_TOKENS):
        tokens.create("A program", (Role.READ,), 1, 0.0)
    with pytest.raises(Exception, match="that it may have"):
        tokens.create("A program", (Role.READ,), 1, 0.0)
    tokens.create("A program", (Role.READ,), 1, float(DAY))
    assert len(tokens.list_all()) == 1
    (tmp_path / TOKENS).write_text("[{}]")
    with pytest.raises(Exception, match="cannot be read") as error:
        tokens.list_all()
    assert error.value.code == "CO-H132"  # type: ignore[attr-defined]
