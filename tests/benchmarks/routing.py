"""What it costs to decide by rules and experiments, on one thread, in microseconds: the median of many.

python -m tests.benchmarks.routing
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import orjson

from extproc.config.experiments import Experiment as Settings
from extproc.config.rules import Rule
from extproc.dialects.openai_requests import ChatRequest
from extproc.operation import Operation
from extproc.policies import route_facts
from extproc.principal import Principal
from extproc.routing.experiments import Experiment, experiment_of
from extproc.routing.rules import Facts, Rules

_WHO = Principal("ada", "red", "pro", frozenset({"*"}))
_HEADERS = {f"x-header-{number}": "value" for number in range(15)}
_NIGHT = {"from": "22:00", "until": "06:00", "zone": "Europe/Berlin"}


def median_us(work: Callable[[], object], times: int = 20_000) -> float:
    took = []
    for _ in range(times):
        began_s = time.perf_counter()
        work()
        took.append(time.perf_counter() - began_s)
    return statistics.median(took) * 1e6


def request(turns: int = 1) -> ChatRequest:
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Be kind. " * 50}]
    for number in range(turns):
        messages += [{"role": "user", "content": f"Question {number}, in some words."}]
        messages += [{"role": "assistant", "content": "An answer. " * 20}] if number < turns - 1 else []
    return ChatRequest({"model": "m", "user": "somebody", "messages": messages})


def rules(count: int, last: dict[str, Any]) -> Rules:
    """The request meets only the last; each other one fails on its second condition."""
    written = [
        {"name": f"r{n}", "when": {"models": ["m"], "teams": [f"t{n}"]}, "to": {"pool": "p"}} for n in range(count)
    ]
    written[-1]["when"] = last
    parsed = [Rule.model_validate_json(orjson.dumps(one)) for one in written]
    return Rules(parsed, lambda *_: True)


def facts() -> Facts:
    known = route_facts.facts_of(request(), _WHO, _HEADERS, 1.8e9)
    known.prompt_tokens, known.complexity = 100, 0.5
    assert known.operation is Operation.CHAT
    return known


def experiment(arms: int, sticky: str) -> Experiment:
    written = {"arms": {f"arm{n}": {"pool": "p"} for n in range(arms)}, "control": "arm0", "sticky": sticky}
    return experiment_of("x", Settings.model_validate_json(orjson.dumps(written)))


def main() -> None:
    asked, long = request(), request(20)
    print(f"facts of a request: {median_us(lambda: route_facts.facts_of(asked, _WHO, _HEADERS, 1.8e9)):.1f} µs")
    print(
        f"facts of one with 40 messages: {median_us(lambda: route_facts.facts_of(long, _WHO, _HEADERS, 1.8e9)):.1f} µs"
    )
    known = facts()
    for count in (1, 10, 100):
        some = rules(count, {"tiers": ["pro"], "headers": {"x-header-3": "value"}, "prompt_tokens": {"min": 50}})
        print(f"the last of {count} rules: {median_us(lambda some=some: some.first(known)):.1f} µs")  # type: ignore[misc]
    night = rules(1, {"time_of_day": _NIGHT})
    print(f"a time of day in a named zone: {median_us(lambda: night.first(known)):.1f} µs")
    for arms in (2, 16):
        one = experiment(arms, "user")
        weights = one.configured(1.8e9)

        def draw(one: Experiment = one, weights: Any = weights) -> str:
            whom = route_facts.subject_of(one, asked, _HEADERS, _WHO)
            return one.assign(whom, weights) + one.pseudonym(whom)

        print(f"a user's arm, of {arms}: {median_us(draw):.1f} µs")
    session = experiment(2, "session")
    print(f"a conversation's subject: {median_us(lambda: route_facts.subject_of(session, long, {}, _WHO)):.1f} µs")


if __name__ == "__main__":
    main()
