"""What a model server's metrics page says of its load: the few series that matter, of a format that has many.

Pure. Understands Prometheus's text format 0.0.4 as far as these series need it. Counters are of no use here: a load is
a gauge (`nv_inference_exec_count`, for one, only ever grows). Must not know: where a page comes from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum

from msgspec import Struct

from extproc.routing.pressure import EndpointLoad

LIMIT_BYTES = 8 * 1024 * 1024
"""A larger page is not read."""


class _Field(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    KV_CACHE = "kv_cache"
    GPU = "gpu"
    GPU_MEMORY_USED = "gpu_memory_used"
    GPU_MEMORY_TOTAL = "gpu_memory_total"


# By name and, where one name stands for several things, by the label that tells them apart. Sources: Triton's metrics
# guide; triton_models/demo_llm; the metrics pages of vLLM and of the TensorRT-LLM backend.
_SERIES: Mapping[tuple[str, str], _Field] = {
    ("nv_gpu_utilization", ""): _Field.GPU,
    ("nv_gpu_memory_used_bytes", ""): _Field.GPU_MEMORY_USED,
    ("nv_gpu_memory_total_bytes", ""): _Field.GPU_MEMORY_TOTAL,
    # Waiting for a backend. One that takes all it is given and queues by itself says so in a series of its own.
    ("nv_inference_pending_request_count", ""): _Field.QUEUED,
    ("demo_llm_queue_depth", ""): _Field.QUEUED,
    ("demo_llm_running", ""): _Field.RUNNING,
    ("demo_llm_kv_cache_utilization", ""): _Field.KV_CACHE,
    ("vllm:num_requests_waiting", ""): _Field.QUEUED,
    ("vllm:num_requests_running", ""): _Field.RUNNING,
    ("vllm:gpu_cache_usage_perc", ""): _Field.KV_CACHE,
    ("vllm:kv_cache_usage_perc", ""): _Field.KV_CACHE,
    ("nv_trt_llm_request_metrics", "waiting"): _Field.QUEUED,
    ("nv_trt_llm_request_metrics", "scheduled"): _Field.RUNNING,
    ("nv_trt_llm_kv_cache_block_metrics", "fraction"): _Field.KV_CACHE,
}
_TOLD_APART_BY = {
    "nv_trt_llm_request_metrics": "request_type",
    "nv_trt_llm_kv_cache_block_metrics": "kv_cache_block_type",
}
_NAMES = "|".join(sorted({re.escape(name) for name, _ in _SERIES}))
_LINE = re.compile(rf"^({_NAMES})[ \t]*(?:\{{(.*)\}})?[ \t]*(\S+)(?:[ \t]+-?\d+)?[ \t]*$", re.MULTILINE)
_LABEL = re.compile(r'([a-zA-Z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"')
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}
_ESCAPE = re.compile(r'\\[\\"n]')


class ModelLoad(Struct):
    """One model's, over all its versions; None where the server says nothing."""

    queued: float | None = None
    running: float | None = None
    kv_cache: float | None = None


class ServerLoad(Struct):
    """One server's. Shares are 0 to 1: `gpu` the mean of its GPUs, `gpu_memory` that of all their memory in use."""

    models: dict[str, ModelLoad]
    gpu: float | None = None
    gpu_memory: float | None = None


class _Sample(Struct, frozen=True):
    field: _Field
    model: str
    value: float


def parse(page: str) -> ServerLoad:
    """The loads on a metrics page. What it does not understand it leaves out; it never raises."""
    models: dict[str, ModelLoad] = {}
    gpus: list[float] = []
    memory = {_Field.GPU_MEMORY_USED: 0.0, _Field.GPU_MEMORY_TOTAL: 0.0}
    for sample in _samples(page):
        if sample.field is _Field.GPU:
            gpus.append(sample.value)
        elif sample.field in memory:
            memory[sample.field] += sample.value
        elif sample.model:
            _add(models.setdefault(sample.model, ModelLoad()), sample)
    total = memory[_Field.GPU_MEMORY_TOTAL]
    return ServerLoad(
        models,
        sum(gpus) / len(gpus) if gpus else None,
        memory[_Field.GPU_MEMORY_USED] / total if total else None,
    )


def load_of(server: ServerLoad, model: str, at_s: float) -> EndpointLoad:
    """What a server said at `at_s` of itself and of one model."""
    own = server.models.get(model, ModelLoad())
    return EndpointLoad(at_s, own.queued, own.running, own.kv_cache, server.gpu, server.gpu_memory)


def _samples(page: str) -> Iterator[_Sample]:
    for name, text, number in _LINE.findall(page):
        labels = {key: _ESCAPE.sub(lambda found: _ESCAPES[found[0]], value) for key, value in _LABEL.findall(text)}
        field = _SERIES.get((name, labels.get(_TOLD_APART_BY.get(name, ""), "")))
        try:
            value = float(number)
        except ValueError:
            continue
        if field is not None and math.isfinite(value) and value >= 0:
            yield _Sample(field, labels.get("model") or labels.get("model_name", ""), value)


def _add(load: ModelLoad, sample: _Sample) -> None:
    if sample.field is _Field.QUEUED:
        load.queued = (load.queued or 0.0) + sample.value
    elif sample.field is _Field.RUNNING:
        load.running = (load.running or 0.0) + sample.value
    else:
        load.kv_cache = max(load.kv_cache or 0.0, sample.value)
