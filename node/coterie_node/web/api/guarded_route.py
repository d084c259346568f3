"""The way of a request to its route: token, scope, idempotency key, route; errors become problem documents.

A route's scope is in its OpenAPI entry, so that the document and the check cannot differ. Token and scope are checked
before anything of the body is parsed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from coterie_node.errors import CoterieError
from coterie_node.persons.roles import Role
from coterie_node.verbs.signing import TextWanted
from coterie_node.web.api.bodies import TextToSign
from coterie_node.web.api.idempotency import Stored
from coterie_node.web.api.problems import PROBLEM, describe_problem, encode_problem, make_problem
from coterie_node.web.api.services import ApiServices
from coterie_node.web.api.tokens import ApiToken, Refused

SCOPE = "x-coterie-scope"
REPLAYED = "Idempotency-Replayed"
Handler = Callable[[Request], Coroutine[Any, Any, Response]]
# Single answers get no tag, because nobody asks for them twice.
MAX_TAGGED_BYTES = 1 << 22


class GuardedRoute(APIRoute):
    """A route of the API."""

    def get_route_handler(self) -> Handler:
        """The handler behind all checks."""
        inner, role = super().get_route_handler(), Role((self.openapi_extra or {})[SCOPE])

        async def answer(request: Request) -> Response:
            try:
                token = await run_in_threadpool(_authorise, request, role)
                request.state.token = token
                key = request.headers.get("idempotency-key")
                if key is not None and request.method == "POST":
                    return await _answer_once(request, token, key, inner)
                return _tag(request, await _call(request, inner))
            except Refused as refusal:
                return answer_problem(refusal)

        return answer


def read_services(request: Request) -> ApiServices:
    """The services of the application that a request came to."""
    services: ApiServices = request.app.state.services
    return services


def read_token(request: Request) -> ApiToken:
    """The token of a request that passed the checks."""
    token: ApiToken = request.state.token
    return token


def answer_problem(error: Exception) -> Response:
    """An error of ours as a response."""
    document = describe_problem(error)
    response = Response(encode_problem(document), document["status"], media_type=PROBLEM)
    if document["status"] == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="coterie"'
    return response


def explain_fields(error: RequestValidationError) -> Response:
    """Fields that are out of bounds, by their places; what was sent is not repeated."""
    places = sorted({".".join(map(str, item["loc"][1:])) or str(item["loc"][0]) for item in error.errors()})
    wrong = "; ".join(f"{place[:80]!a}" for place in places[:10])
    detail = f"These parts of the request are missing, unknown or out of bounds: {wrong}. See docs/api.md."
    return Response(encode_problem(make_problem(422, "CO-H113", detail)), 422, media_type=PROBLEM)


def explain_http(error: HTTPException) -> Response:
    """What the framework refuses: no such address, no such method, a body that is no JSON."""
    code = {404: "CO-H114", 405: "CO-H115"}.get(error.status_code, "CO-H113")
    details = {
        "CO-H114": "The API has no such address. See docs/api.md.",
        "CO-H115": "The address does not take this method. See docs/api.md.",
        "CO-H113": "The body cannot be read as JSON. Correct it.",
    }
    status = 422 if code == "CO-H113" else error.status_code
    body = encode_problem(make_problem(status, code, details[code]))
    return Response(body, status, headers=dict(error.headers or {}), media_type=PROBLEM)


def _authorise(request: Request, role: Role) -> ApiToken:
    """The token of a request, if it may do what the route does; Refused else."""
    services = read_services(request)
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    token = services.tokens.check(text if kind.lower() == "bearer" else "", services.clock())
    if not token.person.may(role):
        message = f"This needs the scope {role.value}, and the token {token.id} has {', '.join(token.scopes)}"
        raise Refused("CO-H116", f"{message}. Ask for a token with it.", 403)
    return token


async def _call(request: Request, inner: Handler) -> Response:
    try:
        return await inner(request)
    except TextWanted as wanted:
        answer = TextToSign(text=wanted.text.model_dump(mode="json"), typed_data=wanted.text.typed_data)
        return JSONResponse(answer.model_dump(), 202)
    except CoterieError as error:
        return answer_problem(error)
    except RequestValidationError as error:
        return explain_fields(error)
    except HTTPException as error:
        return explain_http(error)


async def _answer_once(request: Request, token: ApiToken, key: str, inner: Handler) -> Response:
    """The answer of a request with an idempotency key: of the first of its kind, or of this one."""
    services = read_services(request)
    line = f"{request.method} {request.url.path}?{request.url.query}\n".encode()
    whole = line + await request.body()
    stored = await run_in_threadpool(services.keys.begin, token.id, key, whole, services.clock())
    if stored is not None:
        return Response(stored.body, stored.status, {REPLAYED: "true"}, stored.kind)
    # Whatever happens, the key is free again or has its answer.
    outcome = Stored(500, PROBLEM, b"")
    try:
        response = await _call(request, inner)
        outcome = Stored(response.status_code, response.headers.get("content-type", ""), bytes(response.body))
    finally:
        await run_in_threadpool(services.keys.finish, token.id, key, outcome)
    return response


def _tag(request: Request, response: Response) -> Response:
    """An answer to a GET with its entity tag, or 304 if the client has it already."""
    body = getattr(response, "body", b"")
    if request.method != "GET" or response.status_code != 200 or not 0 < len(body) <= MAX_TAGGED_BYTES:
        return response
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    wanted = {text.strip().removeprefix("W/") for text in request.headers.get("if-none-match", "").split(",")}
    if tag in wanted:
        return Response(status_code=304, headers={"ETag": tag})
    response.headers["ETag"] = tag
    return response
