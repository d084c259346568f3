"""The commands of a hospital's node: init, doctor, join, invite, serve, `site` and `study`; `register` adds them."""

from __future__ import annotations

import typer

from coterie_node.commands import study as study  # its commands join `study advise`
from coterie_node.commands.doctor import doctor_command
from coterie_node.commands.init import init_command
from coterie_node.commands.network import invite_command, join_command
from coterie_node.commands.serve import serve_command
from coterie_node.commands.site import site


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("init")(init_command)
    app.command("doctor")(doctor_command)
    app.command("invite")(invite_command)
    app.command("join")(join_command)
    app.command("serve")(serve_command)
    app.add_typer(site, name="site")
