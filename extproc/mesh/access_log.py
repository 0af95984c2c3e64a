"""The access log: one line of JSON per request, with what the service found out about it.

Neither the query of a URL, nor a header that can carry a secret, nor any text of a request or an answer is in it.

Must not know: how the service comes by its fields.
"""

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog
from envoy_data_plane.envoy.config.core.v3 import (
    JsonFormatOptions,
    SubstitutionFormatString,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.extensions.access_loggers.file.v3 import FileAccessLog
from envoy_data_plane.envoy.extensions.formatter.req_without_query.v3 import ReqWithoutQuery
from envoy_data_plane.google.protobuf import Any, Struct, Value

from extproc.mesh import names

SERVICE_FIELDS = (
    "principal",
    "team",
    "tier",
    "model",
    "operation",
    "pool",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "ttft_ms",
    "termination",
)
"""Keys of the dynamic metadata namespace that the service fills in; null in the log where it has not."""

_ENVOY_FIELDS = {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "traceparent": "%REQ(TRACEPARENT)%",
    "method": "%REQ(:METHOD)%",
    "path": f"%REQ_WITHOUT_QUERY({names.CLIENT_PATH_HEADER}?:PATH)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "duration_ms": "%DURATION%",
    "request_ms": "%REQUEST_DURATION%",
    "response_start_ms": "%RESPONSE_DURATION%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "user_agent": "%REQ(USER-AGENT):128%",
    "upstream_cluster": f"%UPSTREAM_METADATA({names.METADATA_NAMESPACE}:cluster)%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "upstream_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}


def access_log(path: str) -> AccessLog:
    fields = _ENVOY_FIELDS | {name: f"%DYNAMIC_METADATA({names.METADATA_NAMESPACE}:{name})%" for name in SERVICE_FIELDS}
    line = SubstitutionFormatString(
        json_format=Struct(fields={name: Value(string_value=text) for name, text in fields.items()}),
        json_format_options=JsonFormatOptions(sort_properties=False),
        formatters=[
            TypedExtensionConfig(name="envoy.formatter.req_without_query", typed_config=Any.pack(ReqWithoutQuery()))
        ],
    )
    return AccessLog(name="envoy.access_loggers.file", typed_config=Any.pack(FileAccessLog(path=path, log_format=line)))
