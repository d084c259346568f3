"""Signing in with a name, a password and a code, and signing out."""

from __future__ import annotations

from starlette.responses import Response

from coterie_node.errors import CoterieError
from coterie_node.web.access import Entrance, PageRoute, Visit
from coterie_node.web.guard import LOGIN, find_target, go, set_cookie
from coterie_node.web.rendering import render

WRONG = "Name, password or code is wrong."


def show_login(visit: Visit) -> Response:
    """The form; who is signed in already goes on."""
    target = find_target(visit.request.query_params.get("next", "/"))
    if visit.session.person is not None:
        return go(visit, target)
    return _show_form(visit, target)


def sign_in(visit: Visit) -> Response:
    """Check name, password and code; a session that was anonymous ends, and another one begins."""
    target = find_target(visit.read_field("next"))
    password = str(visit.form.get("password", ""))
    try:
        person = visit.services.accounts.check(visit.read_field("name"), password, visit.read_field("code"))
    except CoterieError as error:
        return _show_form(visit, target, getattr(error, "message", str(error)), 403)
    if person is None:
        return _show_form(visit, target, WRONG, 403)
    visit.services.sessions.end(visit.session.name)
    response = go(visit, target)
    set_cookie(response, visit, visit.services.sessions.begin(person))
    return response


def sign_out(visit: Visit) -> Response:
    """End the session, on the server and in the browser."""
    visit.services.sessions.end(visit.session.name)
    response = go(visit, LOGIN)
    response.delete_cookie(visit.services.cookie, path="/")
    return response


def _show_form(visit: Visit, target: str, problem: str = "", status: int = 200) -> Response:
    empty = visit.services.accounts.is_empty()
    return render(
        visit,
        "login.html.j2",
        status,
        target=target,
        problem=problem,
        empty=empty,
        provider=visit.services.settings.oidc,
    )


LOGIN_ROUTES = (
    PageRoute("GET", LOGIN, Entrance.OPEN, show_login),
    PageRoute("POST", LOGIN, Entrance.OPEN, sign_in),
    PageRoute("POST", "/logout", Entrance.SIGNED_IN, sign_out),
)
