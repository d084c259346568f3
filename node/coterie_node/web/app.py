"""The page as one application: routes behind the guard, static files, parts of others, and the middleware around all.

app = build_app(services, parts=(login_part, api_part))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from coterie_node.site.config import LOOPBACK_HOSTS
from coterie_node.web.access import PagePart, PageRoute, Visit
from coterie_node.web.guard import find_session, guard
from coterie_node.web.middleware import wrap
from coterie_node.web.pages.table import PAGE_ROUTES
from coterie_node.web.rendering import render_error
from coterie_node.web.services import PageServices

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp

STATIC = Path(__file__).parent / "static"
# Style and script are the same for everybody, and a browser asks again whether they are.
STATIC_CACHE = "public, max-age=0, must-revalidate"


class StaticFolder(StaticFiles):
    """Style and script of the page."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        """One file, which a browser may keep if it asks whether it is still the same."""
        response = super().file_response(*arguments, **options)
        response.headers["cache-control"] = STATIC_CACHE
        return response


def build_app(services: PageServices, parts: Sequence[PagePart] = ()) -> ASGIApp:
    """The page of one site. `parts`: what login and HTTP API hang in."""
    routes = list_routes(parts)
    own: list[BaseRoute] = [
        Route(route.path, guard(route, services), methods=[route.method])
        for route in sorted(routes, key=lambda route: "{" in route.path)  # a fixed path before one with a value in it
    ]
    mounts = [mount for part in parts for mount in part.mounts]

    async def explain(request: Request, error: Exception) -> Response:
        return await _explain(request, error, services)

    @asynccontextmanager
    async def follow(_: Starlette) -> AsyncIterator[None]:
        with services.site.follow():
            yield

    app = Starlette(
        routes=[*mounts, Mount("/static", StaticFolder(directory=STATIC)), *own],
        exception_handlers={HTTPException: explain},
        lifespan=follow,
    )
    return wrap(app, list_hosts(services), services.settings.proxies)


def list_routes(parts: Iterable[PagePart] = ()) -> tuple[PageRoute, ...]:
    """The whole table of routes: the page's own and those of its parts."""
    return (*PAGE_ROUTES, *(route for part in parts for route in part.routes))


def list_hosts(services: PageServices) -> list[str]:
    """The hosts by whose names the page answers; another name is refused, so that no other name's page reads it."""
    loopback = [host for host in LOOPBACK_HOSTS if ":" not in host]
    return [*services.settings.hosts, *loopback, f"{services.site.name}.localhost"]


async def _explain(request: Request, error: Exception, services: PageServices) -> Response:
    """What the router refuses, as a page: no such address, no such method, or too many bytes."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = str(error.detail) if isinstance(error, HTTPException) else ""
    session = find_session(request, services)
    if session is None:
        return PlainTextResponse(f"{detail or status}\n", status)
    words = {404: "There is no such page.", 405: "This page does not take such a request."}
    text = f"{words[status]} Go on from the menu." if status in words else detail
    return render_error(Visit(request, session, services), status, "CO-W104" if status in words else "", text)
