"""Whatever happens to a configuration file, its author gets errors with lines, never a traceback."""

import pathlib
import re
from collections.abc import Mapping

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extproc import config
from extproc.errors import ConfigError, Problem
from extproc.policies import pipeline

EXAMPLE = (pathlib.Path(__file__).parents[3] / "envoy" / "gateway.yaml").read_text()
LINES = EXAMPLE.splitlines()
ENV = {"EXTPROC_KEY_SECRET": "hunter2-hunter2-hunter2", "EXTPROC_HOME": "/nowhere"}
ERROR = re.compile(r"gateway\.yaml:[1-9][0-9]*: .+")

fragments = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["null", "[]", "{}", "-1", "1e999", "9" * 60, ".nan", "true", "!!int x", "&a", "*a", "${X}", "${", "'", "\t"]
    ),
    st.sampled_from(["\\ud800", '"\\ud800"', "\ufeff", "\x00", "? x", "- ", "---\n", "<<: *a", "%YAML 3.0\n"]),
)


def problems(text: str, env: Mapping[str, str]) -> tuple[Problem, ...]:
    """None for a valid configuration. Lets everything but ConfigError through."""
    try:
        config.parse(text, pipeline.SETTINGS, env)
    except ConfigError as error:
        return error.problems or (Problem("", 0, "", "an error without a problem"),)
    return ()


def check(text: str) -> None:
    last = text.count("\n") + 2
    for problem in problems(text, ENV):
        assert ERROR.match(str(problem)), problem
        assert 1 <= problem.line <= last
        assert ENV["EXTPROC_KEY_SECRET"] not in str(problem)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_replaced_values(data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(LINES) - 1))
    key, separator, _ = LINES[number].partition(": ")
    changed = key + separator + data.draw(fragments)
    check("\n".join([*LINES[:number], changed, *LINES[number + 1 :]]))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_characters_put_in_and_taken_out(data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(EXAMPLE)))
    end = data.draw(st.integers(begin, min(len(EXAMPLE), begin + 40)))
    check(EXAMPLE[:begin] + data.draw(fragments) + EXAMPLE[end:])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_lines_moved_doubled_and_indented(data: st.DataObject) -> None:
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 4))):
        line = lines[data.draw(st.integers(0, len(lines) - 1))]
        lines.insert(data.draw(st.integers(0, len(lines))), " " * data.draw(st.integers(0, 6)) + line.strip())
    check("\n".join(lines))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_any_text_at_all(text: str) -> None:
    check(text)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60).filter(lambda text: "\x00" not in text))
def test_any_value_of_a_variable(value: str) -> None:
    for problem in problems(EXAMPLE, ENV | {"EXTPROC_PORT": value, "EXTPROC_WORKERS": value}):
        assert 1 <= problem.line <= len(LINES)
