"""The commands of a hospital's node: init, doctor, join, invite, serve and `site`; `register` adds them."""

from __future__ import annotations

import typer

from coterie_node.cli.site.doctor import doctor_command
from coterie_node.cli.site.init import init_command
from coterie_node.cli.site.join import invite_command, join_command
from coterie_node.cli.site.members import site
from coterie_node.cli.site.serve import serve_command


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("init")(init_command)
    app.command("doctor")(doctor_command)
    app.command("invite")(invite_command)
    app.command("join")(join_command)
    app.command("serve")(serve_command)
    app.add_typer(site, name="site")
