"""Tokens in Envoy's own statistics, per cluster that served and per model: the stats access logger adds up what the
service says in dynamic metadata.

Label values come from the configuration (clusters, models), so there are as many series as clusters times models.

Must not know: how the service comes by its numbers.
"""

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog, AccessLogFilter, MetadataFilter
from envoy_data_plane.envoy.extensions.access_loggers.stats.v3 import (
    Config,
    ConfigCounter,
    ConfigHistogram,
    ConfigHistogramUnit,
    ConfigStat,
    ConfigTag,
)
from envoy_data_plane.envoy.type.matcher.v3 import MetadataMatcher, MetadataMatcherPathSegment, ValueMatcher
from envoy_data_plane.envoy.type.v3 import Scope
from envoy_data_plane.google.protobuf import Any

from extproc.mesh import names

PREFIX = "extproc"
_CLUSTER = ConfigTag(name="cluster", value_format=f"%UPSTREAM_METADATA({names.METADATA_NAMESPACE}:cluster)%")
_MODEL = ConfigTag(name="model", value_format=f"%DYNAMIC_METADATA({names.METADATA_NAMESPACE}:model)%")
_COUNTERS = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}


def token_stats() -> AccessLog:
    """For answers that a model gave: only then is there a time to its first token."""
    counters = [
        ConfigCounter(stat=ConfigStat(name=name, tags=[_CLUSTER, _MODEL]), value_format=_fact(fact))
        for name, fact in _COUNTERS.items()
    ]
    first_token = ConfigHistogram(
        stat=ConfigStat(name="time_to_first_token_ms", tags=[_CLUSTER, _MODEL]),
        unit=ConfigHistogramUnit.Milliseconds,
        value_format=_fact("ttft_ms"),
    )
    stats = Config(stats_scope=Scope(prefix=PREFIX), counters=counters, histograms=[first_token])
    return AccessLog(name="envoy.access_loggers.stats", filter=_knows("ttft_ms"), typed_config=Any.pack(stats))


def _fact(name: str) -> str:
    return f"%DYNAMIC_METADATA({names.METADATA_NAMESPACE}:{name})%"


def _knows(fact: str) -> AccessLogFilter:
    """Of requests without it there is nothing to count, and Envoy would log each of them as a failure."""
    path = [MetadataMatcherPathSegment(key=fact)]
    matcher = MetadataMatcher(filter=names.METADATA_NAMESPACE, path=path, value=ValueMatcher(present_match=True))
    return AccessLogFilter(metadata_filter=MetadataFilter(matcher=matcher, match_if_key_not_found=False))
