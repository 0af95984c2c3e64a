"""An operator's rules: what is refused when they are read, what they find, and that pieces make no difference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.config.loader import parse
from extproc.detection.topics import Topic, topic_of
from extproc.detection.user_rules import BadExpression, UserRule, UserRules, word_rule
from extproc.errors import ConfigError
from extproc.policies.pipeline import SETTINGS

RULES = UserRules(
    [
        word_rule("firm", "Ärzte Haus"),
        word_rule("secret", "机密"),
        UserRule("fall", r"\bop(eration)?\s+\w{1,9}fall\b", 24),
    ]
)
CONFIG = """\
keys: {hash_secret: 0123456789abcdef}
models: {m: {pool: p, operations: [chat], context_window: 100}}
pools: {p: {dialect: openai, model: x, clusters: {a: {endpoints: ["127.0.0.1:1"]}}}}
policies:
  content_filter:
    rules:
      r: RULE
"""


def found(text: str) -> list[tuple[int, int, str]]:
    return [(span.start, span.end, span.entity) for span in RULES.scan(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("im ÄRZTE  haus.", [(3, 14, "firm")]),
        ("ärzte hausen", []),
        ("这是机密文件", [(2, 4, "secret")]),
        ("Operation Skyfall and op skyfall", [(0, 17, "fall"), (22, 32, "fall")]),
        ("cop skyfall", []),
    ],
)
def test_finds(text: str, expected: list[tuple[int, int, str]]) -> None:
    assert found(text) == expected


@given(st.lists(st.sampled_from(["Ärzte", " Haus", "机", "密", " op", "eration ", "sky", "fall", " ", "x"])), st.data())
def test_pieces_make_no_difference(words: list[str], data: st.DataObject) -> None:
    text = "".join(words)
    stream, out, spans = RULES.open(), "", []
    pieces = []
    rest = text
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        pieces.append(rest[:size])
        rest = rest[size:]
    for segment in [*(one for piece in pieces for one in stream.feed(piece)), *stream.close()]:
        spans += [(len(out) + one.start, len(out) + one.end, one.entity) for one in segment.spans]
        out += segment.text
    assert out == text
    assert spans == found(text)


@pytest.mark.parametrize("expression", ["(?=a)b", r"(a)\1", "(", "a*", "[", "a{1,1000000}"])
def test_what_no_linear_matcher_can_do_is_refused(expression: str) -> None:
    with pytest.raises(BadExpression):
        UserRules([UserRule("r", expression, 1)])


@pytest.mark.parametrize(
    ("rule", "line", "told"),
    [
        ("{regex: ['fine', '(a']}", 7, "number 2: Missing close parenthesis"),
        ("{words: [a], regex: [b]}", 7, "one of them"),
        ("{}", 7, "one of them"),
        ("{topic: [x], action: redact}", 7, "a topic can be blocked or flagged"),
        ("{words: ['']}", 7, "at least 1"),
    ],
)
def test_a_bad_rule_is_an_error_at_its_line(rule: str, line: int, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(CONFIG.replace("RULE", rule), SETTINGS, {})
    (problem,) = caught.value.problems
    assert problem.line == line
    assert problem.key.startswith("policies.content_filter.rules.r")
    assert told in problem.message


def test_topics() -> None:
    import numpy as np

    def embedding(*values: float) -> bytes:
        vector = np.array(values, dtype="<f4")
        return (vector / np.linalg.norm(vector)).tobytes()

    topics = {"a": Topic((embedding(1, 0), embedding(0, 1)), 0.9), "b": Topic((embedding(1, 1),), 0.9)}
    assert topic_of([embedding(0.1, 1)], topics) == "a"
    assert topic_of([embedding(1, 0.9)], topics) == "b"
    assert topic_of([embedding(-1, 0)], topics) is None
    assert topic_of([], topics) is None


@pytest.mark.parametrize("text", ["\u200b" * 300_000, "ab" * 150_000, "a " * 150_000], ids=range(3))
def test_bait_costs_no_more_than_its_length(text: str) -> None:
    rules = UserRules([UserRule("slow", r"(a+)+b$|(?:a|b|ab)*c|(\w+\s?)+!", 64), word_rule("word", "needle")])
    assert [span.entity for span in rules.scan(f"{text} needle")][-1] == "word"


def test_a_hundred_thousand_tiny_pieces() -> None:
    stream = UserRules([word_rule("word", "needle"), UserRule("code", "x[0-9]{3}", 8)]).open()
    text = "the needle of x123 and " * 4348
    segments = [segment for letter in text for segment in stream.feed(letter)] + stream.close()
    assert "".join(segment.text for segment in segments) == text
    assert sum(len(segment.spans) for segment in segments) == 2 * 4348
