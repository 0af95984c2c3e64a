"""Cascades: what can be tried before what, and where a mistake stands."""

import pathlib

import pytest

from extproc import config, gateway_file
from extproc.config.address import UnixAddress
from extproc.errors import ConfigError

TEXT = """
keys: {{hash_secret: 0123456789abcdef}}
service: {{listen: "{listen}"}}
models:
  large: {{pool: a, operations: [chat], context_window: 100, price: {{currency: USD}}}}
  small: {{pool: b, operations: [chat, completions], context_window: 100, price: {{currency: {currency}}}}}
  twin: {{pool: b, operations: [chat], context_window: 100}}
  vectors: {{pool: k, operations: [infer], context_window: 100}}
cascades:
  frugal: {cascade}
policies:
  route:
    rules:
      - {rule}
pools:
  a: {{dialect: openai, model: x, clusters: {{c: {{endpoints: ["h:1"]}}}}}}
  b: {{dialect: openai, model: y, clusters: {{c: {{endpoints: ["h:2"]}}}}}}
  k: {{dialect: kserve, model: x, clusters: {{c: {{endpoints: ["h:3"]}}}}}}
"""
GOOD = "{first: small, min_logprob: -0.5}"
RULE = "{name: r, when: {models: [large]}, to: {cascade: frugal}}"


def text(cascade: str = GOOD, rule: str = RULE, listen: str = "unix:/run/x.sock", currency: str = "USD") -> str:
    return TEXT.format(cascade=cascade, rule=rule, listen=listen, currency=currency)


def load(directory: pathlib.Path, given: str) -> config.GatewayConfig:
    path = directory / "gateway.yaml"
    path.write_text(given)
    return gateway_file.load(path, {})


def test_it_needs_a_way_to_ask_another_pool(tmp_path: pathlib.Path) -> None:
    assert load(tmp_path, text()).fallback_address == UnixAddress("/run/x.fallback.sock")


@pytest.mark.parametrize(
    ("given", "line", "problem"),
    [
        (text("{first: nobody}"), 10, "cascades.frugal.first: there is no model nobody"),
        (text("{first: vectors}"), 10, "cascades.frugal.first: the model vectors serves neither chat nor completions"),
        (
            text("{first: vectors, min_logprob: -1}"),
            10,
            "cascades.frugal.min_logprob: the kserve dialect of pool k can't tell log-probabilities",
        ),
        (text("{first: small, min_logprob: 0.5}"), 10, "cascades.frugal.min_logprob"),
        (text("{first: small, checks: 1}"), 10, "cascades.frugal.checks: unknown key"),
        (text("{first: small, max_chars: 1, min_chars: 2}"), 10, "max_chars is less than min_chars"),
        (text("{first: small, json_schema: {type: 7}}"), 10, "cascades.frugal.json_schema: this is no JSON schema"),
        (
            text("{first: small, json_answers: never, json_schema: {type: object}}"),
            10,
            "json_schema is of no use with json_answers: never",
        ),
        (text(rule="{name: r, to: {cascade: other}}"), 14, "to.cascade: there is no cascade other"),
        (text(rule="{name: r, to: {cascade: frugal, pool: a}}"), 14, "give model, pool, experiment or cascade"),
        (
            text(rule="{name: r, when: {models: [small]}, to: {cascade: frugal}}"),
            14,
            "small is the model that it tries first, and would be asked again",
        ),
        (
            text(rule="{name: r, when: {models: [twin]}, to: {cascade: frugal}}"),
            14,
            "twin and small are served by the same pool b",
        ),
        (
            text(rule="{name: r, when: {models: [vectors]}, to: {cascade: frugal}}"),
            14,
            "no model that it is for can be served there",
        ),
        (text(currency="EUR"), 14, "the prices of large and small are in different currencies"),
        (text(listen="127.0.0.1:1"), 3, "there is a cascade, and service.listen is no Unix socket"),
    ],
)
def test_mistakes_are_found_with_their_line(tmp_path: pathlib.Path, given: str, line: int, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, given)
    found = [(one.line, f"{one.key}: {one.message}") for one in caught.value.problems]
    assert any(problem in message for _, message in found), found
    if "127.0.0.1" not in given:
        assert line in [at for at, message in found if problem in message], found


def test_a_rule_for_every_model_tries_it_where_it_can(tmp_path: pathlib.Path) -> None:
    checked = load(tmp_path, text(rule="{name: r, to: {cascade: frugal}}"))
    assert set(checked.cascades) == {"frugal"}


def meshed(keep: str, rule: str = RULE) -> str:
    """The large model comes and goes in a mesh, unless it is kept."""
    given = text(rule=rule).replace("large: {pool: a, operations: [chat]", "large: {pool: a, operations: [completions]")
    given = given.replace("a: {dialect: openai,", "a: {dialect: triton-generate, model_mesh: gpu,")
    return given + f"model_meshes: {{gpu: {{max_models: 1, models: {{x: {{keep: {keep}}}}}}}}}\n"


@pytest.mark.parametrize("rule", [RULE, "{name: r, to: {cascade: frugal}}"])
def test_a_second_model_that_comes_and_goes_would_never_be_loaded(tmp_path: pathlib.Path, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, meshed("false", rule))
    message = "of large, asked second, nothing waits until it is loaded: keep the model of pool a"
    found = [(one.line, one.key, one.message) for one in caught.value.problems]
    assert found == [(14, "policies.route.rules[0].to.cascade", message)]
    assert load(tmp_path, meshed("true", rule)).cascades
