"""gateway.yaml, the one source of truth: its model, its loader, its schema.

`model` (with `models`, `pools`, `policy`, `address`) says what can be configured; `document` reads YAML with
positions; `loader` joins them; `references` checks what sections say about each other. Must not know: Envoy,
gRPC, Redis, and what any policy does.
"""

from extproc.config.loader import load, parse
from extproc.config.model import GatewayConfig
from extproc.config.policy import FailureMode, PolicyMode, PolicySettings
from extproc.config.schema import json_schema

__all__ = ["FailureMode", "GatewayConfig", "PolicyMode", "PolicySettings", "json_schema", "load", "parse"]
