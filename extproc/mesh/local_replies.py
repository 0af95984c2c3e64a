"""Envoy's own errors in OpenAI's shape.

Must not know: the errors that the service makes; those pass unchanged.
"""

import dataclasses
import json

from envoy_data_plane.envoy.config.accesslog.v3 import (
    AccessLogFilter,
    AndFilter,
    ComparisonFilter,
    ComparisonFilterOp,
    ExtensionFilter,
    ResponseFlagFilter,
    StatusCodeFilter,
)
from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    HeaderValueOption,
    RuntimeUInt32,
    SubstitutionFormatString,
)
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel.v3 import ExpressionFilter
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    LocalReplyConfig,
    ResponseMapper,
)
from envoy_data_plane.google.protobuf import Any

from extproc.mesh import wire

_RETRY_AFTER_S = 1

# What the service answers itself is a local reply too, with the details that the service gives it, if any. Those
# that Envoy gives are never empty, and those of the ext_proc filter's own failures begin with `ext_proc_`.
_FROM_SERVICE = "response.code_details == '' || response.code_details.startsWith('extproc.')"


def _request_id() -> HeaderValueOption:
    """An id for what had none, because it could not be read as a request; Envoy replaces it by the request's own."""
    return wire.set_header("x-request-id", "%UNIQUE_ID%")


@dataclasses.dataclass(frozen=True, slots=True)
class _Error:
    """One kind of local reply: by Envoy's response flags, or by a range of status codes."""

    code: str
    message: str
    flags: tuple[str, ...] = ()
    statuses: tuple[int, int] = (0, 0)
    status: int | None = None
    """Sent instead of Envoy's own."""


_ERRORS = (
    _Error("overloaded", "The model servers have no capacity left.", flags=("UO",), status=503),
    _Error(
        "upstream_unavailable",
        "No model server could be reached.",
        flags=("UH", "UF", "UC", "UR", "URX", "NC"),
        status=503,
    ),
    _Error("timeout", "The model server took too long.", flags=("UT",), status=504),
    _Error("invalid_request", "The request is not valid HTTP.", statuses=(400, 400)),
    _Error("unknown_url", "There is nothing here.", statuses=(404, 404)),
    _Error("request_timeout", "The request took too long to arrive.", statuses=(408, 408)),
    _Error("request_too_large", "The request is too large.", statuses=(413, 414)),
    _Error("upgrade_required", "HTTP/1.1 or HTTP/2 is required.", statuses=(426, 426)),
    _Error("rate_limit_exceeded", "There are too many requests.", statuses=(429, 429)),
    _Error("request_headers_too_large", "The request's headers are too large.", statuses=(431, 431)),
    _Error("invalid_request", "The request was refused.", statuses=(401, 499)),
    _Error("upstream_error", "The model server failed.", statuses=(502, 502)),
    _Error("overloaded", "The gateway can't serve this now.", statuses=(503, 503)),
    _Error("timeout", "The request took too long.", statuses=(504, 504)),
    _Error("internal_error", "The gateway failed to process the request.", statuses=(500, 599)),
)


def local_replies() -> LocalReplyConfig:
    """The first mapper that fits decides, so the service's own answers come first, then kinds of failure,
    then bare status codes."""
    return LocalReplyConfig(mappers=[_unchanged(), *(_mapper(error) for error in _ERRORS)])


def _unchanged() -> ResponseMapper:
    expression = ExpressionFilter(expression=_FROM_SERVICE)
    return ResponseMapper(
        filter=AccessLogFilter(
            extension_filter=ExtensionFilter(
                name="envoy.access_loggers.extension_filters.cel", typed_config=Any.pack(expression)
            )
        )
    )


def _mapper(error: _Error) -> ResponseMapper:
    status = error.status or error.statuses[0]
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"error": {"message": error.message, "type": kind, "param": None, "code": error.code}}
    headers = [_request_id()]
    if status in {429, 503}:
        headers.append(wire.set_header("retry-after", str(_RETRY_AFTER_S)))
    return ResponseMapper(
        filter=_matches(error),
        status_code=error.status,
        body=DataSource(inline_string=json.dumps(body, separators=(",", ":"))),
        body_format_override=SubstitutionFormatString(
            text_format_source=DataSource(inline_string="%LOCAL_REPLY_BODY%"), content_type="application/json"
        ),
        headers_to_add=headers,
    )


def _matches(error: _Error) -> AccessLogFilter:
    if error.flags:
        return AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=list(error.flags)))
    lowest, highest = error.statuses
    bounds = [(ComparisonFilterOp.GE, lowest), (ComparisonFilterOp.LE, highest)]
    return AccessLogFilter(and_filter=AndFilter(filters=[_status(operation, value) for operation, value in bounds]))


def _status(operation: ComparisonFilterOp, value: int) -> AccessLogFilter:
    # A runtime key is required; nobody sets this one.
    compared = RuntimeUInt32(default_value=value, runtime_key="extproc.unused")
    return AccessLogFilter(
        status_code_filter=StatusCodeFilter(comparison=ComparisonFilter(op=operation, value=compared))
    )
