"""Between a request and an endpoint: the session, the role that the route needs, the CSRF token, and errors as pages.

no session        GET: to the login form, and back after it     POST: refused
role is missing   refused, with the role's name
POST              the form, or the header X-CSRF-Token, has the session's token
"""

from __future__ import annotations

import hmac
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, cast
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from coterie_node.errors import CoterieError
from coterie_node.web.access import PageRoute, Visit, may_enter
from coterie_node.web.rendering import render_error
from coterie_node.web.services import PageServices
from coterie_node.web.sessions import PageSession

LOGIN = "/login"
LIVE = "/live/"
CSRF_FIELD, CSRF_HEADER = "csrf", "x-csrf-token"
MAX_FIELDS = 100


def guard(route: PageRoute, services: PageServices) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of a route behind all checks."""

    async def answer(request: Request) -> Response:
        session = find_session(request, services)
        visit = Visit(request, session or services.sessions.begin(), services)
        refusal = _refuse_access(route, visit)
        if refusal is None and route.method == "POST":
            visit = replace(visit, form=await _read_form(request))
            refusal = _refuse_forgery(visit)
        response = await _call(route, visit) if refusal is None else refusal
        if session is None:
            set_cookie(response, visit, visit.session)
        return response

    return answer


def find_session(request: Request, services: PageServices) -> PageSession | None:
    """The session of a request, with its person as the site lists them now; None if there is none."""
    use = not request.url.path.startswith(LIVE)  # a page that is open and watched by nobody keeps no session alive
    session = services.sessions.find(request.cookies.get(services.cookie, ""), use)
    if session is None or session.person is None:
        return session
    person = services.accounts.refresh(session.person)
    if person is None:
        services.sessions.end(session.name)
        return None
    return replace(session, person=person)


def set_cookie(response: Response, visit: Visit, session: PageSession) -> None:
    """Give the browser a session's name, unless the endpoint has set another one."""
    cookie = visit.services.cookie
    prefix = f"{cookie}=".encode()
    if not any(name == b"set-cookie" and value.startswith(prefix) for name, value in response.raw_headers):
        secure = visit.request.url.scheme == "https"
        response.set_cookie(cookie, session.name, path="/", secure=secure, httponly=True, samesite="lax")


def _refuse_access(route: PageRoute, visit: Visit) -> Response | None:
    person, request = visit.session.person, visit.request
    if may_enter(route.access, person):
        return None
    if person is not None:
        message = f"This needs the role {route.access}, which {person.name} does not have at this site."
        return render_error(visit, 403, "CO-W102", f"{message} Ask the keeper of the site's register of persons.")
    if request.method == "GET":
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{LOGIN}?next={quote(path, safe='')}", 303)
    return render_error(visit, 401, "CO-W101", "Nobody is signed in: the session has ended. Sign in and try again.")


async def _read_form(request: Request) -> Mapping[str, Any]:
    """The fields of a form; a file comes as its bytes. Empty for another kind of body."""
    kind, _, options = request.headers.get("content-type", "").lower().partition(";")
    if "charset" in options and "utf-8" not in options:
        return {}  # browsers send forms in the page's own letters; other codecs decode to what is no text
    if kind.strip() not in ("application/x-www-form-urlencoded", "multipart/form-data"):
        return {}
    form = await request.form(max_files=1, max_fields=MAX_FIELDS)
    fields = {name: value if isinstance(value, str) else await value.read() for name, value in form.items()}
    await form.close()
    return fields


def _refuse_forgery(visit: Visit) -> Response | None:
    token = visit.read_field(CSRF_FIELD) or visit.request.headers.get(CSRF_HEADER, "")
    if hmac.compare_digest(token.encode(), visit.session.token.encode()):
        return None
    message = "The form is not of this session: it was open while the session ended, or another page sent it."
    return render_error(visit, 403, "CO-W103", f"{message} Open the page again, and send the form from there.")


async def _call(route: PageRoute, visit: Visit) -> Response:
    try:
        if inspect.iscoroutinefunction(route.endpoint):
            return cast(Response, await route.endpoint(visit))
        return cast(Response, await run_in_threadpool(route.endpoint, visit))
    except HTTPException as error:
        return render_error(visit, error.status_code, "CO-W104", str(error.detail))
    except CoterieError as error:
        return render_error(visit, 409, getattr(error, "code", ""), getattr(error, "message", str(error)))


def find_target(text: str) -> str:
    """A path of this page to go on to, as a form or an address names it; the first page for anything else."""
    plain = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable() and "\\" not in text
    return text if plain else "/"


def go(visit: Visit, path: str, message: str = "") -> Response:
    """Go on to another page after a form was taken, which shows a message once."""
    if message:
        visit.services.sessions.update(replace(visit.session, message=message))
    return RedirectResponse(path, 303)
