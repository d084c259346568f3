"""Audits through the API: a replay, a bundle, and a study's entries as they come."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from fastapi import Header, Request
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse

from coterie_chain.ledger.protocol import Ledger, State
from coterie_node.audit.history import to_history_entry
from coterie_node.audit.result import finite
from coterie_node.audit.sources import find_study_number
from coterie_node.errors import CoterieError
from coterie_node.verbs.audits import replay_study, save_study_bundle
from coterie_node.web.api.bodies import StudyId
from coterie_node.web.api.problems import describe_problem
from coterie_node.web.api.read_routes import Caller, Services
from coterie_node.web.api.services import ApiServices
from coterie_node.web.api.tokens import ApiToken
from coterie_node.web.live.places import PlacedStream

_ENDED = (State.COMPLETED, State.ABORTED)
# Entries that one look at the ledger sends.
MAX_EVENTS_AT_ONCE = 500


def run_replay(study: StudyId, services: Services, caller: Caller) -> dict[str, Any]:
    """Recompute every server step of a study from the ledger and the store. FAIL is an answer, not an error."""
    with services.audits.place(caller.id):
        outcome = replay_study(services.folder, study)
    document: dict[str, Any] = finite({**outcome.verdict.as_dict(), "remarks": list(outcome.remarks)})
    return document


def send_bundle(study: StudyId, services: Services, caller: Caller) -> FileResponse:
    """A study and all that proves it as one zip, which `coterie audit verify` checks offline."""
    aside = tempfile.TemporaryDirectory(prefix="coterie-bundle-")
    path = Path(aside.name) / "study.zip"
    try:
        with services.audits.place(caller.id):
            summary = save_study_bundle(services.folder, study, path)
    except BaseException:
        aside.cleanup()
        raise
    name = f"study-{summary.study}.zip"
    return FileResponse(path, media_type="application/zip", filename=name, background=BackgroundTask(aside.cleanup))


async def stream_events(
    study: StudyId,
    request: Request,
    services: Services,
    caller: Caller,
    last_event_id: Annotated[str, Header(pattern="^[0-9]{0,9}$")] = "",
) -> PlacedStream:
    """The ledger's entries of a study as server-sent events, from the first or after `Last-Event-ID`.

    Events are `entry`, and `end` once the study has ended. A stream lasts ten minutes at most; a client then asks
    again with the last ID that it has.
    """
    number = await run_in_threadpool(_find_number, services, study)
    events = _watch(services, caller, number, int(last_event_id or 0), request)
    return PlacedStream(events, services.streams, caller.id)


async def _watch(
    services: ApiServices, caller: ApiToken, number: int, after: int, request: Request
) -> AsyncIterator[str]:
    """Entries after a position until the study or the token ends, the client goes, or the stream's time is over."""
    end = services.clock() + services.stream_seconds
    with ExitStack() as stack:
        try:
            # One reader for the whole stream: it asks the chain for what is new alone.
            ledger = await run_in_threadpool(stack.enter_context, services.folder.open_ledger())
            while services.clock() < end and not await request.is_disconnected():
                await run_in_threadpool(services.tokens.require, caller, services.clock())
                entries, ended = await run_in_threadpool(_read_entries, ledger, number, after)
                for entry in entries:
                    after += 1
                    yield _format("entry", entry, after)
                if ended and len(entries) < MAX_EVENTS_AT_ONCE:
                    yield _format("end", {"study": number}, after)
                    return
                if not entries:
                    yield ": waits\n\n"
                    await asyncio.sleep(services.poll_seconds)
        except CoterieError as error:
            yield _format("error", describe_problem(error), after)


def _find_number(services: ApiServices, study: str) -> int:
    with services.folder.open_ledger() as ledger:
        return find_study_number(ledger, study)


def _read_entries(ledger: Ledger, number: int, after: int) -> tuple[list[dict[str, Any]], bool]:
    """The next entries, and whether the study had ended before they were read."""
    ended = ledger.view(number).state in _ENDED
    entries = list(ledger.history(number))[after : after + MAX_EVENTS_AT_ONCE]
    return [to_history_entry(entry).as_dict() for entry in entries], ended


def _format(kind: str, document: dict[str, Any], position: int) -> str:
    """One event; JSON has no line breaks, so that no text of the ledger ends a field."""
    return f"id: {position}\nevent: {kind}\ndata: {json.dumps(finite(document))}\n\n"
