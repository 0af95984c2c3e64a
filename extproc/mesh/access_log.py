"""The access log: one line of JSON per request, with what the service found out about it.

Neither the query of a URL, nor a header that can carry a secret, nor any text of a request or an answer is in it.

Must not know: how the service comes by its fields.
"""

import json

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog
from envoy_data_plane.envoy.config.core.v3 import (
    JsonFormatOptions,
    SubstitutionFormatString,
)
from envoy_data_plane.envoy.extensions.access_loggers.file.v3 import FileAccessLog
from envoy_data_plane.envoy.extensions.filters.http.header_to_metadata.v3 import Config as HeaderToMetadata
from envoy_data_plane.envoy.extensions.filters.http.header_to_metadata.v3 import ConfigKeyValuePair, ConfigRule
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatchAndSubstitute, RegexMatcher
from envoy_data_plane.google.protobuf import Any, Struct, Value

from extproc.mesh import names

SERVICE_FIELDS = (
    "principal",
    "team",
    "tier",
    "model",
    "operation",
    "pool",
    "fallback_from",
    "served_model",
    "cascade",
    "cascade_reason",
    "arm",
    "rule",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "price",
    "currency",
    "ttft_ms",
    "termination",
    "reason",
    "cache",
    "redacted",
    "guard_score",
    "guard_over",
    "guard_families",
    "priority",
    "queued_ms",
)
"""Keys of the dynamic metadata namespace that the service fills in; null in the log where it has not."""

# The response's too, because what could not be read as a request is given one only there.
_REQUEST_ID = json.dumps({"operators": [{"command": command, "param": "X-REQUEST-ID"} for command in ("REQ", "RESP")]})
_ENVOY_FIELDS = {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "request_id": f"%COALESCE({_REQUEST_ID})%",
    "traceparent": "%REQ(TRACEPARENT)%",
    "method": "%REQ(:METHOD)%",
    "path": f"%DYNAMIC_METADATA({names.CLIENT_NAMESPACE}:path)%",
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


def note_path() -> HttpFilter:
    """Keeps the client's path, without its query, for the log; goes before the service, which rewrites it."""
    without_query = RegexMatchAndSubstitute(pattern=RegexMatcher(regex=r"\?.*"), substitution="")
    path = ConfigKeyValuePair(metadata_namespace=names.CLIENT_NAMESPACE, key="path", regex_value_rewrite=without_query)
    note = HeaderToMetadata(request_rules=[ConfigRule(header=":path", on_header_present=path)])
    return HttpFilter(name="envoy.filters.http.header_to_metadata", typed_config=Any.pack(note))


def access_log(path: str) -> AccessLog:
    fields = _ENVOY_FIELDS | {name: f"%DYNAMIC_METADATA({names.METADATA_NAMESPACE}:{name})%" for name in SERVICE_FIELDS}
    line = SubstitutionFormatString(
        json_format=Struct(fields={name: Value(string_value=text) for name, text in fields.items()}),
        json_format_options=JsonFormatOptions(sort_properties=False),
    )
    return AccessLog(name="envoy.access_loggers.file", typed_config=Any.pack(FileAccessLog(path=path, log_format=line)))
