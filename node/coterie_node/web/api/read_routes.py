"""What the API shows: studies, their records and results, members, releases that wait, and what the node lacks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Depends, Query, Request

from coterie_learners.core.fit import fit_to_json
from coterie_node.audit.history import to_history_entry
from coterie_node.audit.result import finite
from coterie_node.audit.sources import find_study_number
from coterie_node.network.checks.examine import examine
from coterie_node.persons.roles import Role
from coterie_node.site.watch.log import is_quiet
from coterie_node.verbs.members import list_seats
from coterie_node.verbs.releases import list_releases, read_privacy_log
from coterie_node.verbs.results import read_outcome
from coterie_node.verbs.studies import list_study_rows, read_status, show_study
from coterie_node.web.api.bodies import Page, StudyId
from coterie_node.web.api.guarded_route import read_services, read_token
from coterie_node.web.api.paging import Cursor, Limit, make_page
from coterie_node.web.api.services import ApiServices
from coterie_node.web.api.tokens import ApiToken
from coterie_node.web.client.float_words import write_floats

Services = Annotated[ApiServices, Depends(read_services)]
Caller = Annotated[ApiToken, Depends(read_token)]
PageLimit = Annotated[Limit, Query()]
PageCursor = Annotated[Cursor, Query()]


def read_site(services: Services, caller: Caller) -> dict[str, Any]:
    """The site's name, and who the token stands for."""
    return {"site": services.folder.name, "token": caller.id, "name": caller.name, "scopes": list(caller.scopes)}


def read_studies(services: Services, limit: PageLimit = 100, cursor: PageCursor = None) -> Page:
    """The studies on the ledger, the oldest first, and what this site decided."""
    return make_page(list_study_rows(services.folder), limit, cursor)


def read_study(study: StudyId, services: Services) -> dict[str, Any]:
    """A study in full: state, terms, this site's policy, what it does and discloses, its document."""
    return _plain(show_study(services.folder, study))


def read_study_status(study: StudyId, services: Services, caller: Caller) -> dict[str, Any]:
    """Where a study is, which sites it waits for, how it ended. The last fault's sentence needs the scope operate."""
    status = read_status(services.folder, study)
    fault = str(status["last_fault"])
    if not caller.person.may(Role.OPERATE) and is_quiet(fault.partition("Z ")[2].partition(":")[0]):
        status["last_fault"] = fault.partition(": ")[0]
    return _plain(status | {"result": bool(status["result"])})


def read_study_records(study: StudyId, services: Services, limit: PageLimit = 100, cursor: PageCursor = None) -> Page:
    """The ledger's entries of a study, in their order."""
    with services.folder.open_ledger() as ledger:
        entries = ledger.history(find_study_number(ledger, study))
        rows = [_plain(to_history_entry(entry).as_dict()) for entry in entries]
    return make_page(rows, limit, cursor)


def read_study_result(
    study: StudyId, services: Services, level: Annotated[float, Query(ge=0.01, le=0.9999)] = 0.95
) -> dict[str, Any]:
    """The result as `coterie study result --json` has it; `fit` has every digit, for the Python client."""
    outcome = read_outcome(services.folder, study)
    ledger = {"records": outcome.records, "payload_bytes": outcome.payload_bytes}
    rest = {"sites": list(outcome.contributors), "row_warnings": list(outcome.row_warnings), "ledger": ledger}
    return _plain(outcome.as_dict(level)) | rest | {"fit": write_floats(fit_to_json(outcome.fit))}


def read_members(services: Services, limit: PageLimit = 100, cursor: PageCursor = None) -> Page:
    """The network's members, and the votes about them that have not passed yet."""
    return make_page(list_seats(services.folder), limit, cursor)


def read_releases(services: Services, limit: PageLimit = 100, cursor: PageCursor = None) -> Page:
    """Payloads that wait for a person's yes, with every number."""
    return make_page([_plain(dict(payload)) for payload in list_releases(services.folder)], limit, cursor)


def read_release_log(services: Services) -> dict[str, Any]:
    """What has left this site by population, and what the privacy log refused."""
    return _plain(read_privacy_log(services.folder))


def read_checks(services: Services, limit: PageLimit = 100, cursor: PageCursor = None) -> Page:
    """What `coterie doctor` finds: each check, whether it is well, and the remedy."""
    with services.audits.place("doctor"):
        return make_page([asdict(result) for result in examine(services.folder)], limit, cursor)


def read_openapi(request: Request) -> dict[str, Any]:
    """This document."""
    document: dict[str, Any] = request.app.openapi()
    return document


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = finite(document)
    return plain
