"""Configurations in layers of YAML: what most gateways under test have, and on top of it what a test wants."""

from __future__ import annotations

import functools
from typing import Any

import yaml

from extproc.stores.keys import KeyHasher

SECRET = "a-secret-of-enough-letters"
BESIDE = """
gateway:
  listen: 127.0.0.1:${EXTPROC_PORT}
  admin: 127.0.0.1:${EXTPROC_ENVOY_ADMIN_PORT}
service:
  listen: unix:${EXTPROC_RUN_DIR}/extproc.sock
  workers: ${EXTPROC_WORKERS}
  admin: 127.0.0.1:${EXTPROC_ADMIN_PORT}
  notice_s: 0
  drain_timeout_s: 5
redis: {url: "${REDIS_URL}"}
keys: {hash_secret: "${EXTPROC_KEY_SECRET}"}
"""
"""For a `GatewayBeside`, which sets the variables."""
TALKER = """
models:
  talker:
    pool: up
    operations: [chat]
    tokenizer: {type: tiktoken, encoding: cl100k_base}
    chat_template: chatml
pools:
  up:
    dialect: openai
    model: up
    clusters: {only: {endpoints: ["127.0.0.1:${UPSTREAM_PORT}"]}}
    outlier_detection: {consecutive_5xx: 1000}
"""
"""A model before an upstream of the test's own."""


def layered(*texts: str) -> str:
    """YAML texts laid over one another: mappings are merged, of anything else the last one stands."""
    merged = functools.reduce(_over, (yaml.safe_load(text) or {} for text in texts))
    return yaml.safe_dump(merged, sort_keys=False)


def section(name: str, content: str) -> str:
    """A layer of one section, whose content is YAML."""
    return yaml.safe_dump({name: yaml.safe_load(content) or {}}, sort_keys=False)


def static_keys(**keys: dict[str, str]) -> str:
    """A layer of keys, each with its team and its tier; a key's text is its id."""
    hasher = KeyHasher(SECRET.encode())
    return yaml.safe_dump({"keys": {"static": {key: {"hash": hasher.hash(key), **keys[key]} for key in keys}}})


def _over(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {name: _over(below.get(name), value) for name, value in above.items()}
