"""Live parts of pages: after each change the server sends what is another now, and a small script puts it in its place.

The first event of a stream is the whole part, the later ones leave out the pieces that stand there already. A part is
rendered once for each change and each set of roles, however many look at it; what differs between two viewers, the
token in its forms, is put in when it is sent. A stream keeps no session alive. It ends with the session,
and when the site takes the person out of its register or changes the roles.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

from starlette.responses import Response

from coterie_node.errors import CoterieError
from coterie_node.web.access import Visit
from coterie_node.web.live.live_part import LivePart
from coterie_node.web.live.places import PlacedStream
from coterie_node.web.services import PageServices

# Seconds between two signs of life, and until the browser opens the stream again.
SIGN_SECONDS, STREAM_SECONDS = 15.0, 600.0
# What stands in a part for the token of a viewer's session: another one in each process, so that no title and no
# reason that a peer writes has it, and shows the token.
TOKEN_MARK = f"%csrf-{secrets.token_hex(16)}%"

RenderPart = Callable[[PageServices, frozenset[str]], str]
Value = TypeVar("Value")


def stream_part(visit: Visit, name: str, make: RenderPart) -> Response:
    """The stream of a part to one viewer."""
    return PlacedStream(_follow(visit, name, make), visit.services.streams, visit.person.account)


async def _follow(visit: Visit, name: str, make: RenderPart) -> AsyncIterator[str]:
    services, session = visit.services, visit.session
    roles = frozenset(str(role) for role in visit.person.roles)
    shown: LivePart | None = None
    beat = now = 0.0
    while now < STREAM_SECONDS and await _may_watch(visit):
        version = services.version
        if shown is None or version != shown.version:
            try:
                part = await _wait(services.parts.start(name, roles, version, partial(make, services, roles)))
            except CoterieError as error:  # a study that is not on the ledger, or not any more after a reorganisation
                yield _write_end(f"{getattr(error, 'code', '')}: {error}")
                return
            event, shown = services.parts.write_event(shown, part), part
            if event:
                beat = now
                yield event.replace(TOKEN_MARK, session.token)
        if now - beat >= SIGN_SECONDS:
            beat = now
            yield ": still here\n\n"
        now += await services.changes.wait(version)
    if now < STREAM_SECONDS:
        yield _write_end("the session has ended")


def _write_end(cause: str) -> str:
    """The last event: why nothing more comes, in one line."""
    return f"event: end\ndata: {' '.join(cause.split())}\n\n"


async def _may_watch(visit: Visit) -> bool:
    """Whether the session has not ended, and the site lists its person with the same roles as at the begin."""
    services = visit.services
    return services.sessions.peek(visit.session.name) and await _wait(services.persons.start(visit.person))


async def _wait(answer: Future[Value]) -> Value:
    """The answer of a thread, which many may wait for: who stops waiting does not stop it."""
    return answer.result() if answer.done() else await asyncio.shield(asyncio.wrap_future(answer))
