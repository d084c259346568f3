"""What each route of the page needs: the table `route -> role` is data, and what is not in it is not served.

A route is a method, a path and what a visitor must be. `guard` enforces it before the endpoint runs, so that no page
checks its own visitor. Other parts (login, HTTP API) hang in by a `PagePart` with routes of the same kind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from starlette.convertors import IntegerConvertor, register_url_convertor

from coterie_node.persons.roles import Person, Role

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from coterie_node.web.services import PageServices
    from coterie_node.web.sessions import PageSession


class Entrance(StrEnum):
    """What a route needs where it needs no role."""

    OPEN = "everybody"
    SIGNED_IN = "signed in"


class _NumberConvertor(IntegerConvertor):
    """A number in an address, of at most 18 digits: Python makes no number of 4,301, and the route would break."""

    regex = "[0-9]{1,18}"


register_url_convertor("number", _NumberConvertor())

Access = Role | Entrance
Method = Literal["GET", "POST"]


@dataclass(frozen=True)
class Visit:
    """One request that passed the guard: who asks, in which session, and the fields of the form."""

    request: Request
    session: PageSession
    services: PageServices
    form: Mapping[str, Any] = field(default_factory=dict)

    @property
    def person(self) -> Person:
        """The person who is signed in; AssertionError on a route that is open to everybody."""
        assert self.session.person is not None
        return self.session.person

    def read_field(self, name: str) -> str:
        """A text of the form, without the space around it; empty if the form has none."""
        value = self.form.get(name, "")
        return value.strip() if isinstance(value, str) else ""


Endpoint = Callable[[Visit], "Response | Awaitable[Response]"]


@dataclass(frozen=True)
class PageRoute:
    """A route: its method and path, what it needs, and what answers it.

    A plain function runs in a thread of its own; a coroutine runs in the loop and must not wait for the ledger.
    """

    method: Method
    path: str
    access: Access
    endpoint: Endpoint


@dataclass(frozen=True)
class PagePart:
    """What another part of the web hangs into the page.

    `routes` pass the guard. `mounts` are whole applications that check their own visitors (the HTTP API: tokens).
    """

    routes: tuple[PageRoute, ...] = ()
    mounts: tuple[BaseRoute, ...] = ()


def may_enter(access: Access, person: Person | None) -> bool:
    """Whether a visitor may use a route that needs `access`."""
    if access is Entrance.OPEN:
        return True
    if person is None:
        return False
    return access is Entrance.SIGNED_IN or person.may(Role(access))
