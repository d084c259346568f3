"""Live parts of pages: after each change the server sends the part again, and a small script puts it in its place.

A part is rendered once for each change and each set of roles, however many look at it; what differs between two
viewers, the token in its forms, is put in when it is sent. A stream keeps no session alive. It ends with the session,
and when the site takes the person out of its register or changes the roles.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from coterie_node.web.access import Visit
from coterie_node.web.live.places import PlacedStream
from coterie_node.web.services import PageServices

# Seconds between two signs of life, and until the browser opens the stream again.
SIGN_SECONDS, STREAM_SECONDS = 15.0, 600.0
# What stands in a part for the token of a viewer's session.
TOKEN_MARK = "%csrf%"

RenderPart = Callable[[PageServices, frozenset[str]], str]


def stream_part(visit: Visit, name: str, make: RenderPart) -> Response:
    """The stream of a part to one viewer."""
    return PlacedStream(_follow(visit, name, make), visit.services.streams, visit.person.account)


async def _follow(visit: Visit, name: str, make: RenderPart) -> AsyncIterator[str]:
    services, session = visit.services, visit.session
    roles = frozenset(str(role) for role in visit.person.roles)
    last: tuple[int, ...] = ()
    beat = now = 0.0
    while now < STREAM_SECONDS and await run_in_threadpool(_may_watch, visit):
        version = services.version
        if version != last:
            last, beat = version, now
            make_part = partial(_make_event, make, services, roles)
            part = await run_in_threadpool(services.parts.get, name, roles, version, make_part)
            yield part.replace(TOKEN_MARK, session.token)
        elif now - beat >= SIGN_SECONDS:
            beat = now
            yield ": still here\n\n"
        now += await services.changes.wait(version)
    if now < STREAM_SECONDS:
        yield "event: end\ndata: the session has ended\n\n"


def _may_watch(visit: Visit) -> bool:
    """Whether the session has not ended, and the site lists its person with the same roles as at the begin."""
    person = visit.person
    return visit.services.sessions.peek(visit.session.name) and visit.services.accounts.refresh(person) == person


def _make_event(make: RenderPart, services: PageServices, roles: frozenset[str]) -> str:
    """A part as it is sent, except for the token of the viewer's session."""
    return _encode(make(services, roles))


def _encode(part: str) -> str:
    lines = "".join(f"data: {line}\n" for line in part.splitlines())
    return f"event: part\n{lines}\n"
