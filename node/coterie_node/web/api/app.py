"""The HTTP API as an application, which the page mounts under /api/v1.

app = build_api(open_services(folder))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from coterie_node.persons.roles import Role
from coterie_node.web.api import act_routes, audit_routes, read_routes
from coterie_node.web.api.bodies import Problem, TextToSign
from coterie_node.web.api.doorway import Doorway
from coterie_node.web.api.guarded_route import SCOPE, GuardedRoute, explain_http
from coterie_node.web.api.problems import PROBLEM, TITLES, encode_problem, make_problem
from coterie_node.web.api.services import ApiServices
from coterie_node.web.client.api_transport import API_PREFIX

if TYPE_CHECKING:
    from starlette.types import ASGIApp

ABOUT = (
    "What the command `coterie` does at a node, for programs. Each act is written down for the site's daemon, which "
    "alone signs transactions. docs/api.md explains tokens, scopes, idempotency keys, pages and events."
)


@dataclass(frozen=True)
class ApiRoute:
    """One route: its method, path and scope, and the function that answers it."""

    method: Literal["GET", "POST"]
    path: str
    scope: Role
    endpoint: Callable[..., Any]


API_ROUTES = (
    ApiRoute("GET", "/site", Role.READ, read_routes.read_site),
    ApiRoute("GET", "/studies", Role.READ, read_routes.read_studies),
    ApiRoute("GET", "/studies/{study}", Role.READ, read_routes.read_study),
    ApiRoute("GET", "/studies/{study}/status", Role.READ, read_routes.read_study_status),
    ApiRoute("GET", "/studies/{study}/records", Role.READ, read_routes.read_study_records),
    ApiRoute("GET", "/studies/{study}/events", Role.READ, audit_routes.stream_events),
    ApiRoute("GET", "/studies/{study}/result", Role.READ, read_routes.read_study_result),
    ApiRoute("GET", "/members", Role.READ, read_routes.read_members),
    ApiRoute("GET", "/openapi.json", Role.READ, read_routes.read_openapi),
    ApiRoute("POST", "/studies", Role.PROPOSE, act_routes.propose_study),
    ApiRoute("POST", "/studies/{study}/approve", Role.APPROVE, act_routes.approve_study),
    ApiRoute("POST", "/studies/{study}/decline", Role.APPROVE, act_routes.decline_study),
    ApiRoute("POST", "/studies/{study}/abort", Role.APPROVE, act_routes.abort_study),
    ApiRoute("POST", "/studies/{study}/withdraw", Role.APPROVE, act_routes.withdraw_study),
    ApiRoute("POST", "/studies/{study}/supersede", Role.APPROVE, act_routes.supersede_study),
    ApiRoute("POST", "/studies/{study}/resume", Role.OPERATE, act_routes.resume_study),
    ApiRoute("POST", "/votes", Role.OPERATE, act_routes.vote_about_member),
    ApiRoute("GET", "/checks", Role.OPERATE, read_routes.read_checks),
    ApiRoute("GET", "/releases", Role.RELEASE, read_routes.read_releases),
    ApiRoute("GET", "/releases/log", Role.RELEASE, read_routes.read_release_log),
    ApiRoute("POST", "/releases/{digest}/approve", Role.RELEASE, act_routes.let_release_leave),
    ApiRoute("POST", "/refusals/{study}/allow", Role.RELEASE, act_routes.allow_refused_study),
    ApiRoute("POST", "/studies/{study}/replay", Role.AUDIT, audit_routes.run_replay),
    ApiRoute("GET", "/studies/{study}/bundle", Role.AUDIT, audit_routes.send_bundle),
)


def build_api(services: ApiServices) -> ASGIApp:
    """The API of one site, behind its doorway."""
    return Doorway(build_routes(services))


def build_routes(services: ApiServices | None = None) -> FastAPI:
    """The routes alone; without services they serve no request, and only say what there is."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.state.services = services
    router = APIRouter(route_class=GuardedRoute, redirect_slashes=False)
    for route in API_ROUTES:
        _add(router, route)
    app.include_router(router)
    app.add_exception_handler(HTTPException, _explain)
    app.add_exception_handler(Exception, _explain_defect)
    app.openapi = lambda: write_openapi(app)  # type: ignore[method-assign]
    return app


def _add(router: APIRouter, route: ApiRoute) -> None:
    refusals = (400, 401, 403, 404, 409, 413, 415, 422, 429, 503)
    content = {PROBLEM: {"schema": PROBLEM_REF}}
    answers: dict[int | str, dict[str, Any]] = {
        status: {"description": TITLES[status], "content": content} for status in refusals
    }
    if route.endpoint.__module__ == act_routes.__name__:
        answers[202] = {"description": "The text that the person has to sign; nothing is done", "model": TextToSign}
    header = {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "minLength": 8, "maxLength": 128}}
    extra: dict[str, Any] = {SCOPE: route.scope.value, "security": [{"token": [route.scope.value]}]}
    router.add_api_route(
        route.path,
        route.endpoint,
        methods=[route.method],
        summary=(route.endpoint.__doc__ or "").split("\n")[0],
        description=f"Needs the scope `{route.scope.value}`.",
        operation_id=route.endpoint.__name__,
        responses=answers,
        openapi_extra=extra | ({"parameters": [header]} if route.method == "POST" else {}),
    )


PROBLEM_REF = {"$ref": "#/components/schemas/Problem"}


def write_openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the API."""
    document = get_openapi(
        title="Coterie node", version=version("coterie"), summary=ABOUT, routes=app.routes, openapi_version="3.1.0"
    )
    parts = document.setdefault("components", {})
    schemas = parts.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = Problem.model_json_schema()
    scheme = {"type": "http", "scheme": "bearer", "description": "A token of `coterie token create`."}
    parts["securitySchemes"] = {"token": scheme}
    document["servers"] = [{"url": API_PREFIX}]
    return document


async def _explain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return explain_http(error)


async def _explain_defect(request: Request, error: Exception) -> Response:
    """A defect of ours: its text may quote rows, so that only its kind is sent."""
    detail = f"A defect of the program ({type(error).__name__}) ended the request. Send a report."
    return Response(encode_problem(make_problem(500, "CO-H199", detail)), 500, media_type=PROBLEM)
