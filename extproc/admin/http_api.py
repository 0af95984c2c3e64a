"""The admin API over aiohttp: requests in, endpoints' answers or problems out; bounded in size, number and time.

Must not know: what any endpoint does.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import orjson
from aiohttp import web

from extproc.admin.endpoints import BODY_LIMIT_BYTES, QUERY_LIMIT_CHARS, Call, Endpoint, read_input
from extproc.admin.guard import Guard
from extproc.admin.openapi import document
from extproc.admin.problems import Problem
from extproc.operations.trail import NotRecorded
from extproc.stores.errors import StoreUnavailable

MOST_CALLS = 16
DEADLINE_S = 30.0
_RETRY_AFTER = {"retry-after": "1"}
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}
_encode = msgspec.json.Encoder().encode
_log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def guarded(guard: Callable[[], Guard]) -> web.Application:
    """An application that lets in whom `guard` lets in, and says no in one shape."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        refused = guard().refusal(request.path, request.headers)
        if refused is not None:
            return problem_response(refused)
        try:
            return await handler(request)
        except web.HTTPException as error:
            code = _CODES.get(error.status, "invalid_request")
            allow = {"allow": error.headers["allow"]} if "allow" in error.headers else {}
            return problem_response(Problem(error.status, code, error.reason or ""), allow)
        except Problem as problem:
            return problem_response(problem)
        except Exception:
            _log.exception("an admin request failed")
            return problem_response(Problem(500, "internal_error", "a bug; the log has more"))

    return web.Application(middlewares=[answer], client_max_size=BODY_LIMIT_BYTES)


class Connection(web.RequestHandler):
    """As aiohttp's, but for what it says of bytes that are no request, and that they don't fill the log."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            _log.error("an admin connection failed", exc_info=exc)
            problem = Problem(500, "internal_error", "a bug; the log has more")
        else:
            problem = Problem(400, "invalid_request", "this is no HTTP request that can be read")
        answer = problem_response(problem)
        answer.force_close()
        return answer


def problem_response(problem: Problem, headers: dict[str, str] | None = None) -> web.Response:
    more = dict(headers or {})
    if problem.status == 401:
        more["www-authenticate"] = "Bearer"
    if problem.status == 503:
        more |= _RETRY_AFTER
    return _json(_encode(problem.body), problem.status, more)


class HttpApi:
    """Every endpoint, at its path, and their document."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints
        self._calls = 0

    def add_to(self, app: web.Application) -> None:
        for endpoint in self._endpoints:
            app.router.add_route(endpoint.method, endpoint.path, functools.partial(self._answer, endpoint))
        app.router.add_route("GET", "/openapi.json", self._document)

    async def _document(self, request: web.Request) -> web.Response:
        return _json(orjson.dumps(document(self._endpoints)), 200)

    async def _answer(self, endpoint: Endpoint, request: web.Request) -> web.Response:
        if self._calls >= MOST_CALLS:
            raise Problem(503, "busy", f"{MOST_CALLS} requests are being answered already")
        self._calls += 1
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await self._called(endpoint, request)
        except TimeoutError:
            raise Problem(503, "too_slow", f"this was not done in {DEADLINE_S:.0f} s") from None
        except StoreUnavailable:
            raise Problem(503, "store_unavailable", "Redis can't be reached") from None
        except NotRecorded as error:
            raise Problem(503, "audit_unavailable", f"{error}: without that nothing is changed") from None
        finally:
            self._calls -= 1

    async def _called(self, endpoint: Endpoint, request: web.Request) -> web.Response:
        if len(request.raw_path) > QUERY_LIMIT_CHARS:
            raise Problem(400, "invalid_request", "the path and its query are too long")
        content_type = request.headers.get("content-type", "")
        body = await request.read()
        taken = read_input(endpoint, request.match_info, list(request.query.items()), content_type, body)
        answer = await endpoint.handle(Call(taken, f"admin-api@{request.remote}"))
        return _json(answer if isinstance(answer, bytes) else _encode(answer), endpoint.status)


def _json(body: bytes, status: int, headers: dict[str, str] | None = None) -> web.Response:
    shown = {"cache-control": "no-store", "x-content-type-options": "nosniff", **(headers or {})}
    return web.Response(body=body, status=status, content_type="application/json", headers=shown)
