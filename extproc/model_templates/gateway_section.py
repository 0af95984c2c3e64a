"""What gateway.yaml says of a new model: its sections `models` and `pools`, with the balancing that suits it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from extproc.config.address import TcpAddress
from extproc.model_templates.options import Backend, Options

_METRICS_ABOVE_HTTP = 2
"""Triton's own ports: 8000, 8002."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Where the model is served, and what the gateway counts and renders with; without both it can't chat."""

    endpoints: Sequence[TcpAddress]
    tokenizer: Path | None = None
    chat_template: str | Path | None = None


def section(options: Options, serving: Serving) -> str:
    """YAML to merge into gateway.yaml."""
    names = [options.name, *(options.adapted_name(lora) for lora in options.loras)]
    merged = {
        "models": {name: _model(name, options, serving) for name in names},
        "pools": {name: _pool(name, options, serving) for name in names},
    }
    return yaml.safe_dump(merged, sort_keys=False, allow_unicode=True)


def _model(name: str, options: Options, serving: Serving) -> Mapping[str, Any]:
    model: dict[str, Any] = {"pool": name, "operations": ["completions"], "context_window": options.context_window}
    if serving.tokenizer is not None:
        model["tokenizer"] = {"type": "huggingface", "file": str(serving.tokenizer)}
    if serving.chat_template is not None:
        template = serving.chat_template
        model["operations"] = ["chat", "completions"]
        model["chat_template"] = template if isinstance(template, str) else {"file": str(template)}
    return model


def _pool(name: str, options: Options, serving: Serving) -> Mapping[str, Any]:
    servers = {
        "endpoints": [str(endpoint) for endpoint in serving.endpoints],
        "metrics": [str(TcpAddress(at.host, at.port + _METRICS_ABOVE_HTTP)) for at in serving.endpoints],
    }
    pool: dict[str, Any] = {"dialect": "triton-generate", "model": name, "clusters": {"tritons": servers}}
    if options.prefix_caching:
        # Prompts that begin alike go where that beginning is in the KV cache.
        pool |= {"balancing": "consistent_hash", "consistent_hash": {"by": "prefix"}}
    else:
        pool["balancing"] = "least_request"
    if options.backend is Backend.VLLM:
        # An engine that batches well has a busy GPU and no queue.
        pool["pressure_from"] = ["queue", "kv_cache"]
    if name != options.engine_name:
        # Who stands before the engine is ready also when that is not.
        pool["health"] = {"path": f"/v2/models/{options.engine_name}/ready"}
    return pool
