"""gateway.yaml as the whole program reads it: what the configuration package alone can't know to be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from extproc import gateway_file
from extproc.errors import ConfigError

CONFIG = """
keys: {{hash_secret: a-secret-of-enough-letters}}
models:
  chatty:
    pool: here
    operations: [chat]
    tokenizer: {tokenizer}
    chat_template: {template}
    context_window: 100
pools:
  here: {{dialect: triton-generate, model: m, clusters: {{one: {{endpoints: ["127.0.0.1:8000"]}}}}}}
"""


def problems(directory: Path, tokenizer: str, template: str) -> list[tuple[int, str]]:
    path = directory / "gateway.yaml"
    path.write_text(CONFIG.format(tokenizer=tokenizer, template=template))
    try:
        gateway_file.load(path)
    except ConfigError as error:
        return [(problem.line, problem.key) for problem in error.problems]
    return []


def test_a_good_one(tmp_path: Path) -> None:
    assert problems(tmp_path, "{type: tiktoken, encoding: cl100k_base}", "chatml") == []


@pytest.mark.parametrize("template", ["openai", "nonesuch", "{file: broken.jinja}"])
def test_a_template_that_cannot_render_here(tmp_path: Path, template: str) -> None:
    (tmp_path / "broken.jinja").write_text("{% for message in %}")
    found = problems(tmp_path, "{type: tiktoken, encoding: cl100k_base}", template)
    assert found == [(8, "models.chatty.chat_template")]


def test_a_tokenizer_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"not": "a tokenizer"}')
    found = problems(tmp_path, "{type: huggingface, file: tokenizer.json}", "chatml")
    assert found == [(7, "models.chatty.tokenizer")]


def test_a_mended_file_is_read_again(tmp_path: Path) -> None:
    template = tmp_path / "own.jinja"
    template.write_text("{% for message in %}")
    assert problems(tmp_path, "{type: tiktoken, encoding: cl100k_base}", "{file: own.jinja}")
    template.write_text("{% for message in messages %}{{ message.content }}{% endfor %}")
    assert problems(tmp_path, "{type: tiktoken, encoding: cl100k_base}", "{file: own.jinja}") == []


def test_a_budget_is_in_one_currency(tmp_path: Path) -> None:
    model = "pool: here, operations: [embeddings], context_window: 100"
    path = tmp_path / "gateway.yaml"
    path.write_text(
        f"""
keys: {{hash_secret: a-secret-of-enough-letters}}
models:
  a: {{{model}, price: {{input_per_mtok: "1", output_per_mtok: "1", currency: EUR}}}}
  b: {{{model}, price: {{input_per_mtok: "1", output_per_mtok: "1", currency: USD}}}}
pools:
  here: {{dialect: kserve, model: m, clusters: {{one: {{endpoints: ["127.0.0.1:8000"]}}}}}}
policies:
  limit: {{budgets: {{month: {{scope: team, amount: "10"}}}}}}
"""
    )
    with pytest.raises(ConfigError, match="EUR, USD"):
        gateway_file.load(path, {})
    path.write_text(path.read_text().replace("USD", "EUR"))
    gateway_file.load(path, {})


IDENTITIES = """
keys: {hash_secret: a-secret-of-enough-letters}
models: {m: {pool: p, operations: [chat], context_window: 100}}
pools: {p: {dialect: openai, model: x, clusters: {c: {endpoints: ["127.0.0.1:8000"]}}}}
identities:
"""
ISSUER = "{issuer: 'https://i', audiences: [a], jwks_file: jwks.json, team: t}"


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("{require: both}", "identities.require"),
        ("{workloads: {w: {spiffe_id: 'spiffe://a/b', team: t, models: [other]}}}", "identities.workloads.w.models[0]"),
        ("{workloads: {w: {spiffe_id: 'spiffe://a', team: t}}}", "identities.workloads.w.spiffe_id"),
        ("{workloads: {w: {spiffe_id: 'spiffe://a/*b', team: t}}}", "identities.workloads.w.spiffe_id"),
        (f"{{issuers: {{i: {ISSUER}}}}}", "identities.issuers.i.jwks_file"),
        (f"{{issuers: {{i: {ISSUER}, j: {ISSUER}}}}}", "identities.issuers.j.issuer"),
    ],
)
def test_identities_that_nobody_can_have(tmp_path: Path, section: str, key: str) -> None:
    (tmp_path / "jwks.json").write_text('{"keys": []}')
    (tmp_path / "gateway.yaml").write_text(f"{IDENTITIES}  {section}\n")
    with pytest.raises(ConfigError) as raised:
        gateway_file.load(tmp_path / "gateway.yaml")
    assert [problem.key for problem in raised.value.problems] == [key]


def test_a_template_that_cannot_render_where_a_fallback_needs_it(tmp_path: Path) -> None:
    config = CONFIG.format(tokenizer="{type: tiktoken, encoding: cl100k_base}", template="openai").replace(
        "here:", "by:"
    )
    here = 'here: {dialect: openai, model: m, clusters: {one: {endpoints: ["127.0.0.1:1"]}}, fallback: [{pool: by}]}'
    (tmp_path / "gateway.yaml").write_text(f"{config.rstrip()}\n  {here}\n")
    with pytest.raises(ConfigError) as caught:
        gateway_file.load(tmp_path / "gateway.yaml")
    assert [problem.key for problem in caught.value.problems] == ["models.chatty.chat_template"]
