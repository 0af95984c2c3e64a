"""Every configuration that a page of docs/ shows is one that extproc takes, and every page of a policy shows one.

That what it does is as the page says, is run by the end-to-end tests in `RUN_BY`.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from extproc import gateway_file
from extproc.policies import pipeline
from tests.helpers.certificates import TokenIssuer

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
RUN_BY: Mapping[str, str] = {
    "adding-a-policy": "tests/e2e/test_adding_a_policy.py",
    "admission": "tests/e2e/test_pages.py",
    "audit": "tests/e2e/test_guard.py",
    "caching": "tests/e2e/test_pages.py",
    "cascade": "tests/e2e/cascade/test_page.py",
    "content-rules": "tests/e2e/test_guard.py",
    "experiments": "tests/e2e/test_pages.py",
    "failover": "tests/e2e/failover/test_tritons.py",
    "guard": "tests/e2e/test_guard.py",
    "identity": "tests/e2e/test_identity.py",
    "limits": "tests/e2e/test_pages.py",
    "model-mesh": "tests/e2e/test_model_mesh.py",
    "model-templates": "tests/e2e/test_model_templates.py",
    "redaction": "tests/e2e/test_pages.py",
    "routing": "tests/e2e/test_affinity.py",
    "routing-rules": "tests/e2e/test_pages.py",
    "semantic-cache": "tests/e2e/test_semantic_cache.py",
    "usage": "tests/integration/cli/test_usage.py",
    "validation": "tests/e2e/test_pages.py",
}
BASE = """
keys: {hash_secret: a-secret-of-enough-letters}
models:
  demo-llm: {pool: demo, operations: [chat], context_window: 8192, chat_template: chatml,
    tokenizer: {type: tiktoken, encoding: cl100k_base}}
pools: {demo: {dialect: triton-generate, model: demo_llm, clusters: {a: {endpoints: ["127.0.0.1:1"]}}}}
"""
POOL = {"dialect": "triton-generate", "model": "demo_llm", "clusters": {"a": {"endpoints": ["127.0.0.1:1"]}}}
CHAT = {"tokenizer": {"type": "tiktoken", "encoding": "cl100k_base"}, "chat_template": "chatml"}
LARGE = {"pool": "demo", "operations": ["chat"], "context_window": 32768, **CHAT}
# What an example speaks of and does not show.
BESIDE: Mapping[str, dict[str, Any]] = {
    "routing-rules": {
        "pools": {"spot": POOL, "large": POOL},
        "models": {"demo-llm-long": LARGE},
        "experiments": {"llm-v2": {"control": "a", "arms": {"a": {"pool": "demo"}, "b": {"pool": "spot"}}}},
        "encoder": {},
    },
    "identity": {"models": {"llm": LARGE}},
    "usage": {"models": {"demo-llm": CHAT}},
    "deploy": {"pools": {"llm": {**POOL, "clusters": {"a": {"endpoints": ["triton.models:8000"]}}}}},
    "limits": {"pools": {"demo": POOL}},
}
ELSEWHERE = {
    "routing",
    "failover",
    "adding-a-policy",
    "guard",
    "content-rules",
    "semantic-cache",
    "admission",
    "experiments",
}
"""Their examples are parts of a section, or need a built model: the tests that run them load them."""


def blocks(page: str) -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL)


EXAMPLES = [
    pytest.param(page, text, id=f"{page}-{number}")
    for page in PAGES
    if page not in ELSEWHERE
    for number, text in enumerate(blocks(page))
]


@pytest.mark.parametrize(("page", "text"), EXAMPLES)
def test_an_example_is_taken(page: str, text: str, tmp_path: pathlib.Path) -> None:
    text = re.sub(r"\$\{file:[^}]*\}", "a-secret-of-enough-letters", text)
    shown = yaml.safe_load(text)
    config = merged(merged(yaml.safe_load(BASE), BESIDE.get(page, {})), shown)
    for pool, own in shown.get("pools", {}).items():  # a pool that is shown as a whole is not the base's
        if "clusters" in own:
            config["pools"][pool] = own
    (tmp_path / "jwks.json").write_text(TokenIssuer("https://login.example.com").jwks())
    for secret in ("admin-token", "audit-secret"):
        (tmp_path / secret).write_text("a-secret-of-enough-letters\n")
    path = tmp_path / "gateway.yaml"
    path.write_text(yaml.safe_dump(config))
    gateway_file.load(path, {})


def merged(base: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for name, value in more.items():
        own = both.get(name)
        both[name] = merged(own, value) if isinstance(own, dict) and isinstance(value, dict) else value
    return both


def test_every_policy_has_a_page_with_an_example_that_a_test_runs() -> None:
    own_pages = {"identify": "identity", "limit": "limits", "admit": "admission", "redact": "redaction",
                 "content_filter": "content-rules", "semantic_cache": "semantic-cache", "cache": "caching",
                 "route": "routing-rules", "affinity": "routing", "endpoint": "routing",
                 "load_model": "model-mesh", "validate": "validation", "count_tokens": "validation"}  # fmt: skip
    without_settings = {"scan", "account", "list_models"}
    for policy in set(pipeline.SETTINGS) - without_settings:
        page = own_pages.get(policy, policy)
        assert blocks(page), f"docs/{page}.md shows no configuration of {policy}"
        assert (ROOT / RUN_BY[page]).is_file()
