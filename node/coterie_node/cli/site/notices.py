"""`coterie notices`: try the ways by which a node's people get notices."""

from __future__ import annotations

import secrets

import typer

from coterie_node.cli.options import NodeOption, open_node_folder
from coterie_node.errors import ConfigError, CoterieError
from coterie_node.notices.events import Notice, NoticeKind
from coterie_node.notices.ways import open_senders

notices = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Notices of this site's events, by e-mail and webhook."
)
FAILED = 12


@notices.callback()
def describe_notices() -> None:
    """Notices of this site's events, by e-mail and webhook."""


@notices.command("test")
def send_test_command(node: NodeOption = None) -> None:
    """Send a test notice by each way that node.toml names; status 12 if one fails."""
    home = open_node_folder(node)
    part, mark = home.config.notices, secrets.token_hex(8)
    if not part.wanted:
        message = "node.toml names no recipient of notices"
        raise ConfigError("CO-T105", f"{message}. Add [notices.mail] or [[notices.webhooks]]: see docs/notices.md.")
    notice = Notice(NoticeKind.TEST, f"test:{mark}", f"This is a test of {home.name}'s notices. Nothing is wrong.")
    failures = 0
    for sender in open_senders(home.name, part, home.root):
        try:
            sender.send(f"test-{mark}", [notice])
            print(f"{sender.name}: sent")
        except CoterieError as error:
            failures += 1
            print(f"{sender.name}: {error.code}: {error.message}")
    if failures:
        raise typer.Exit(FAILED)
