"""From values to HTML: templates that escape everything, and the layout that all pages share."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from coterie_chain.ledger.protocol import ZERO
from coterie_node.audit.report.page import make_environment
from coterie_node.data.findings import printable
from coterie_node.persons.roles import Role
from coterie_node.web.access import Visit

# The menu: address, name, and the role that its page needs.
MENU = (
    ("/studies", "Studies", Role.READ),
    ("/network", "Network", Role.READ),
    ("/audit", "Audit", Role.AUDIT),
    ("/settings", "Settings", Role.OPERATE),
)


def make_templates() -> Environment:
    """The templates of the page, with the filters of the audit report."""
    jinja = Environment(
        loader=PackageLoader("coterie_node.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {name: make_environment().filters[name] for name in ("num", "p", "plain", "short")}
    jinja.filters |= {
        "moment": format_moment,
        "instant": spell_instant,
        "bytes": format_bytes,
        "plain_lines": spell_lines,
        "nothing": spell_nothing,
    }
    return jinja


def render(visit: Visit, template: str, status: int = 200, **values: Any) -> Response:
    """A page: the template with its values inside the layout."""
    session, services = visit.session, visit.services
    person = session.person
    menu = [entry[:2] for entry in MENU if person is not None and person.may(entry[2])]
    page = services.templates.get_template(template).render(
        site=services.site.name,
        person=person,
        signs=person is not None and services.site.folder.persons.read_register() is not None,
        menu=menu,
        path=visit.request.url.path,
        token=session.token,
        message=session.message,
        **values,
    )
    if session.message:
        services.sessions.update(replace(session, message=""))
    return HTMLResponse(page, status)


def render_error(visit: Visit, status: int, code: str, message: str) -> Response:
    """A page that says what happened and what to do."""
    return render(visit, "error.html.j2", status, code=code, text=message)


def spell_lines(text: str) -> str:
    """Several lines without characters that steer a reader."""
    return "\n".join(printable(line) for line in str(text).splitlines())


def spell_nothing(text: str) -> str:
    """A text in which a digest of nothing but zeros is called what it is: none."""
    return str(text).replace(f"0x{ZERO.hex()}", "none")


def format_moment(seconds: int) -> str:
    """A time of the ledger in words (UTC); a dash for none."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds)) if seconds else "–"


def spell_instant(text: str) -> str:
    """A time of a record, ISO 8601 in UTC, as `format_moment` writes it."""
    return f"{text[:19].replace('T', ' ')} UTC"


def format_bytes(size: int) -> str:
    """A size for people: bytes, or powers of 1024."""
    amount, names = float(size), ("bytes", "KiB", "MiB", "GiB")
    for name in names[:-1]:
        if amount < 1024:
            return f"{amount:.0f} {name}" if name == "bytes" else f"{amount:.1f} {name}"
        amount /= 1024
    return f"{amount:.1f} {names[-1]}"
