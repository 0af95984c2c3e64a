"""What rules and experiments may say: every contradiction is told at its line."""

import pathlib
import textwrap

import pytest

from extproc import gateway_file
from extproc.errors import ConfigError

BASE = """\
keys: {hash_secret: 0123456789abcdef}
models:
  chatty:
    pool: small
    operations: [chat]
    tokenizer: {type: tiktoken, encoding: cl100k_base}
    chat_template: openai
    context_window: 100
  plain: {pool: small, operations: [chat, embeddings], context_window: 100}
pools:
  small: {dialect: openai, model: s, clusters: {c: {endpoints: ["127.0.0.1:1"]}}}
  vectors: {dialect: kserve, model: v, clusters: {c: {endpoints: ["127.0.0.1:2"]}}}
  generate: {dialect: triton-generate, model: g, clusters: {c: {endpoints: ["127.0.0.1:3"]}}}
"""
ARMS = "arms: {a: {pool: small, weight: 90}, b: {model: plain, weight: 10}}, control: a"


def problems(tmp_path: pathlib.Path, rules: str = "", experiments: str = "") -> list[str]:
    text = BASE
    if experiments:
        text += "experiments:\n" + textwrap.indent(textwrap.dedent(experiments).strip(), "  ") + "\n"
    if rules:
        text += "policies:\n  route:\n    rules:\n" + textwrap.indent(textwrap.dedent(rules).strip(), "      ") + "\n"
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    try:
        gateway_file.load(path, {})
    except ConfigError as error:
        return [str(problem).removeprefix(f"{path}:") for problem in error.problems]
    return []


ANY_HEADER = "{name: b, when: {headers: {x-a: '*'}}, to: {pool: small}}"
LONG = "{name: b, when: {prompt_tokens: {min: 6, max: 9}, tiers: [pro]}, to: {pool: small}}"
FIRST = len(BASE.splitlines()) + 4  # the line of the first rule
GOOD = """
- name: long
  when: {models: [chatty], prompt_tokens: {min: 50}, time_of_day: {from: 22:00, until: 06:00, zone: Europe/Berlin}}
  to: {model: plain}
- {name: team, when: {teams: [red], headers: {x-app: "*"}}, to: {experiment: x}}
- {name: rest, to: {pool: small}}
"""


def test_rules_and_experiments_that_make_sense(tmp_path: pathlib.Path) -> None:
    ramp = (
        "ramp: [{at: 2026-12-01T00:00:00Z, weights: {b: 20}}, {at: 2026-12-02T00:00:00+01:00, weights: {a: 0, b: 50}}]"
    )
    testers = "testers: {pinned: {ada: b}, header: x-arm, teams: [qa]}"
    assert problems(tmp_path, GOOD, f"x: {{{ARMS}, {ramp}, {testers}, sticky: header, header: x-user}}") == []


@pytest.mark.parametrize(
    ("rules", "line", "expected"),
    [
        ("- {name: a, to: {pool: nowhere}}", 0, "there is no pool nowhere"),
        ("- {name: a, to: {model: nothing}}", 0, "there is no model nothing"),
        ("- {name: a, to: {experiment: never}}", 0, "there is no experiment never"),
        ("- {name: a, to: {pool: small, model: plain}}", 0, "give model, pool, experiment or cascade, one of them"),
        ("- {name: a, when: {models: [nothing]}, to: {pool: small}}", 0, "there is no model nothing"),
        ("- {name: a, when: {models: [plain], prompt_tokens: {min: 1}}, to: {pool: small}}", 0, "has no tokenizer"),
        ("- {name: a, when: {headers: {authorization: x}}, to: {pool: small}}", 0, "carries a secret"),
        ("- {name: a, when: {headers: {x-extproc-arm: x}}, to: {pool: small}}", 0, "reaches a rule"),
        ("- {name: a, when: {time_of_day: {from: 9:00, until: 10:00}}, to: {pool: small}}", 0, "pattern"),
        (
            "- {name: a, when: {time_of_day: {from: 09:00, until: 10:00, zone: Mars}}, to: {pool: small}}",
            0,
            "there is no such time zone",
        ),
        ("- {name: a, when: {tiers: [pro], color: red}, to: {pool: small}}", 0, "unknown key"),
        ("- {name: a, when: {models: [chatty]}, to: {pool: vectors}}", 0, "no model that it is for can be served"),
        ("- {name: a, to: {pool: small}}\n- {name: a, when: {teams: [x]}, to: {pool: small}}", 1, "another rule has"),
        (
            "- {name: a, to: {pool: small}}\n- {name: b, when: {teams: [x]}, to: {pool: small}}",
            1,
            "never reached: rule a takes all",
        ),
        (
            "- {name: a, when: {prompt_tokens: {min: 5}}, to: {pool: small}}\n- " + LONG,
            1,
            "never reached: rule a takes all",
        ),
    ],
)
def test_broken_rules(tmp_path: pathlib.Path, rules: str, line: int, expected: str) -> None:
    found = problems(tmp_path, rules)
    assert any(expected in one and one.startswith(f"{FIRST + line}: policies.route.rules[{line}]") for one in found), (
        found
    )


@pytest.mark.parametrize(
    "rules",
    [
        # The first takes what can be served there, which chats can't.
        "- {name: a, to: {pool: vectors}}\n- {name: b, when: {models: [plain]}, to: {pool: small}}",
        "- {name: a, when: {tiers: [pro]}, to: {pool: small}}\n- {name: b, to: {pool: small}}",
        "- {name: a, when: {headers: {x-a: v}}, to: {pool: small}}\n- " + ANY_HEADER,
    ],
)
def test_rules_that_are_reached(tmp_path: pathlib.Path, rules: str) -> None:
    assert problems(tmp_path, rules) == []


@pytest.mark.parametrize(
    ("experiment", "expected"),
    [
        ("arms: {a: {pool: small}}, control: a", "at least 2"),
        ("arms: {a: {pool: small}, b: {pool: gone}}, control: a", "there is no pool gone"),
        ("arms: {a: {pool: small}, b: {pool: small, model: plain}}, control: a", "give pool or model"),
        ("arms: {a: {pool: small, weight: 0}, b: {pool: small, weight: 0}}, control: a", "every weight is 0"),
        (f"{ARMS[:-1]}c", "there is no arm c"),
        (f"{ARMS}, sticky: header", "go together"),
        (f"{ARMS}, header: x-user", "go together"),
        (f"{ARMS}, testers: {{pinned: {{ada: c}}}}", "there is no arm c"),
        (f"{ARMS}, testers: {{header: x-arm}}", "nobody may use it"),
        (f"{ARMS}, testers: {{teams: [qa]}}", "nothing that they may use"),
        (f"{ARMS}, ramp: [{{at: 2026-12-01T00:00:00, weights: {{a: 1}}}}]", "timezone"),
        (f"{ARMS}, ramp: [{{at: 2026-12-01T00:00:00Z, weights: {{a: 0, b: 0}}}}]", "every weight is 0 from then on"),
        (f"{ARMS}, mirror: {{pool: gone}}", "there is no pool gone"),
        (f"{ARMS}, mirror: {{pool: generate}}", "it can't read what is written for pool small"),
        (f"{ARMS}, guardrails: [{{metric: error_rate}}]", "give above or worse_by"),
        (f"{ARMS}, guardrails: [{{metric: p95_latency_ms, worse_by: 0.1}}]", "needs above"),
        (f"{ARMS}, guardrails: [{{metric: error_rate, above: 1}}]", "below 1"),
    ],
)
def test_broken_experiments(tmp_path: pathlib.Path, experiment: str, expected: str) -> None:
    found = problems(tmp_path, experiments=f"x: {{{experiment}}}")
    assert any(expected in one and "experiments.x" in one for one in found), found
