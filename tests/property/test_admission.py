"""The line before a pool: its bounds, its fairness, and that the scripts in Redis keep it as the reference does."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from extproc.admission import Line, Priority, Standing, Ticket
from extproc.stores.fair_line import FairLine
from extproc.stores.lines import RedisLines
from tests.helpers.redis import RedisServer

LEASE_MS = 5_000
NEVER_MS = 10**9
_fresh = itertools.count()


def line(
    requests: tuple[int, ...] = (4, 4, 3, 2),
    tokens: tuple[int, ...] = (0, 0, 0, 0),
    weights: tuple[int, ...] = (64, 16, 4, 1),
    length: int = 10_000,
) -> Line:
    return Line("pool", requests, tokens, weights, length, LEASE_MS)


def nested(most: int) -> st.SearchStrategy[tuple[int, ...]]:
    bounds = st.lists(st.integers(1, most), min_size=4, max_size=4).map(lambda found: sorted(found, reverse=True))
    return st.one_of(bounds.map(tuple), st.just((0, 0, 0, 0)))


lines = st.builds(
    line, nested(6), nested(300), st.lists(st.integers(1, 64), min_size=4, max_size=4).map(tuple), st.integers(0, 8)
)
priorities = st.sampled_from(Priority)
principals = st.sampled_from(("ann", "bob", "cy"))
names = st.sampled_from([f"t{number:02}" for number in range(16)])
entering = st.tuples(
    st.just("enter"), names, priorities, st.integers(1, 200), principals, st.integers(0, 20_000),
    st.sampled_from((False, False, False, False, True)),
)  # fmt: skip
operations = st.lists(
    st.tuples(
        st.one_of(st.just(0), st.integers(0, 3_000)),
        st.one_of(
            entering,
            entering,
            st.tuples(st.just("leave"), names),
            st.tuples(st.just("beat"), st.sets(names), st.booleans()),
        ),
    ),
    min_size=1,
    max_size=40,
)


def ticket(name: str, priority: Priority, tokens: int = 1, principal: str = "ann", wait_ms: int = NEVER_MS) -> Ticket:
    return Ticket(name, priority, tokens, principal, wait_ms)


@settings(max_examples=300, deadline=None)
@given(rules=lines, sequence=operations)
def test_bounds_are_kept_and_nobody_waits_for_nothing(rules: Line, sequence: list[Any]) -> None:
    """Whatever happens: no class uses more than its bound together with those below it, no more wait than may, and
    there is nobody at the front who could go in."""
    own, now_ms = FairLine(), 0
    for delay_ms, (kind, *rest) in sequence:
        now_ms += delay_ms
        if kind == "enter":
            name, priority, tokens, principal, wait_ms, _ = rest
            own.enter(rules, ticket(name, priority, tokens, principal, wait_ms), now_ms)
        elif kind == "leave":
            own.leave(rules, rest[0], now_ms)
        else:
            own.beat(rules, sorted(rest[0]), now_ms, reap=rest[1])
        use = own.use
        for level in Priority:
            assert not 0 < rules.requests[level] < sum(use.requests[level:])
            assert not 0 < rules.tokens[level] < sum(use.tokens[level:])
        assert sum(use.waiting) <= rules.length
        if not any(rules.tokens):  # who waits, waits for a bound that is reached
            for level in (level for level in Priority if use.waiting[level]):
                assert any(rules.requests[at] == sum(use.requests[at:]) > 0 for at in range(level + 1))
        if sum(use.waiting):
            assert sum(use.requests) > 0


@settings(max_examples=100, deadline=None)
@given(
    weights=st.lists(st.integers(1, 20), min_size=4, max_size=4),
    costs=st.lists(st.integers(1, 50), min_size=4, max_size=4),
    levels=st.sets(priorities, min_size=2).map(sorted),
)
def test_classes_share_by_their_weights(weights: list[int], costs: list[int], levels: list[Priority]) -> None:
    """While classes have work, each has got its part to within the cost of a request of each: none starves."""
    rules = line((1, 1, 1, 1), weights=tuple(weights))
    got: Counter[Priority] = Counter()
    order: list[str] = ["running"]

    def told(name: str, _: Standing) -> None:
        order.append(name)
        got[Priority(int(name[0]))] += costs[int(name[0])]

    own = FairLine(told)
    own.enter(rules, ticket("running", Priority.P0), 0)
    each = 60
    for number in range(each):
        for level in levels:
            own.enter(rules, ticket(f"{level}-{number}", level, costs[level]), 0)
    for _ in range(each):  # as many as one class alone has: all of them have work until then
        own.leave(rules, order[-1], 0)
    served = {level: got[level] / weights[level] for level in levels}
    most = max(costs[level] / weights[level] for level in levels)
    assert max(served.values()) - min(served.values()) <= 2 * most + 0.6  # rounded up to hundredths, each time


@settings(max_examples=100, deadline=None)
@given(costs=st.lists(st.integers(1, 50), min_size=2, max_size=4), flood=st.integers(1, 3), priority=priorities)
def test_principals_of_a_class_share_alike(costs: list[int], flood: int, priority: Priority) -> None:
    """However much one of them asks for, and however early: while all wait, none gets more than another by more than
    two requests' cost."""
    rules = line((1, 1, 1, 1))
    got: Counter[int] = Counter()
    order: list[str] = []

    def told(name: str, _: Standing) -> None:
        order.append(name)
        got[int(name[0])] += costs[int(name[0])]

    own = FairLine(told)
    own.enter(rules, ticket("running", priority, 1, "else"), 0)
    for who, cost in enumerate(costs):
        for number in range(60 * (flood if who == 0 else 1)):
            own.enter(rules, ticket(f"{who}-{number}", priority, cost, str(who)), 0)
    running = "running"
    for _ in range(60):
        own.leave(rules, running, 0)
        running = order[-1]
    assert max(got.values()) - min(got[who] for who in range(len(costs))) <= 2 * max(costs)


def test_background_does_not_starve_while_better_classes_keep_coming() -> None:
    rules, order = line((2, 2, 2, 1)), []
    own = FairLine(lambda name, _: order.append(name))
    for number in range(2):
        own.enter(rules, ticket(f"first-{number}", Priority.P0, 10), 0)
    own.enter(rules, ticket("background", Priority.P3, 10), 0)
    for number in range(100):
        own.enter(rules, ticket(f"urgent-{number}", Priority.P0, 10), 0)
    running = ["first-0", "first-1"]
    while "background" not in order:
        own.leave(rules, running.pop(0), 0)
        running.append(order[-1])
    assert len(order) <= 65  # as its weight says


def test_a_large_request_is_not_passed_for_ever() -> None:
    rules, order = line((0, 0, 0, 0), (100, 100, 100, 100)), []
    own = FairLine(lambda name, _: order.append(name))
    for number in range(10):
        own.enter(rules, ticket(f"small-{number}", Priority.P1, 10), 0)
    own.enter(rules, ticket("large", Priority.P1, 90, "bob"), 0)
    for number in range(10, 40):
        own.enter(rules, ticket(f"small-{number}", Priority.P1, 10), 0)
    running = [f"small-{number}" for number in range(10)]
    while "large" not in order:
        own.leave(rules, running.pop(0), 0)
        running = [f"small-{number}" for number in range(40) if own.standing(f"small-{number}") is Standing.RUNNING]
    assert len(order) <= 10


def test_one_that_is_larger_than_the_pool_goes_in_alone() -> None:
    rules = line((0, 0, 0, 0), (100, 100, 90, 80))
    own = FairLine()
    assert own.enter(rules, ticket("small", Priority.P3, 1), 0).standing is Standing.RUNNING
    assert own.enter(rules, ticket("huge", Priority.P3, 10_000), 0).standing is Standing.WAITING
    own.leave(rules, "small", 0)
    assert own.standing("huge") is Standing.RUNNING
    assert own.use.tokens == (0, 0, 0, 80)


def test_a_class_that_is_held_back_saves_nothing_up() -> None:
    """While background waits for its own bound, others are served; it doesn't get all of that back afterwards."""
    rules, order = line((2, 2, 2, 1)), []
    own = FairLine(lambda name, _: order.append(name))
    own.enter(rules, ticket("holding", Priority.P3), 0)
    for number in range(50):
        own.enter(rules, ticket(f"back-{number}", Priority.P3), 0)
    own.enter(rules, ticket("urgent", Priority.P0), 0)
    running = "urgent"
    for number in range(500):  # one after the other, past all that wait
        own.enter(rules, ticket(f"urgent-{number}", Priority.P0), 0)
        own.leave(rules, running, 0)
        running = f"urgent-{number}"
        assert own.standing(running) is Standing.RUNNING
    for number in range(100):
        own.enter(rules, ticket(f"more-{number}", Priority.P0), 0)
    order.clear()
    own.leave(rules, "holding", 0)
    own.leave(rules, running, 0)
    for _ in range(30):
        own.leave(rules, next(name for name in order if own.standing(name) is Standing.RUNNING), 0)
    assert sum(name.startswith("back") for name in order) <= 2


@pytest.mark.parametrize("newcomer", list(Priority))
def test_a_full_line_sheds_the_lowest_class_and_who_asked_for_most(newcomer: Priority) -> None:
    rules, told = line((1, 1, 1, 1), length=3), []
    own = FairLine(lambda name, standing: told.append((name, standing)))
    own.enter(rules, ticket("running", Priority.P2), 0)
    for number in range(3):
        own.enter(rules, ticket(f"greedy-{number}", Priority.P2, 1, "greedy"), 0)
    entry = own.enter(rules, ticket("new", newcomer, 1, "modest"), 0)
    if newcomer is Priority.P3:
        assert entry.standing is Standing.SHED
        assert own.use.waiting == (0, 0, 3, 0)
    else:  # in its own class, too: it has asked for less
        assert entry.standing is Standing.WAITING
        assert told == [("greedy-2", Standing.SHED)]


@pytest.fixture
async def redis_lines(own_redis: RedisServer) -> AsyncIterator[RedisLines]:
    store = RedisLines(own_redis.url, 5.0, "replica")
    yield store
    await store.close()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rules=st.lists(lines, min_size=1, max_size=2), sequence=operations)
async def test_the_scripts_do_as_the_reference(redis_lines: RedisLines, rules: list[Line], sequence: list[Any]) -> None:
    pool, own, now_ms = f"pool-{next(_fresh)}", FairLine(), 1_767_225_000_000
    chosen = [replace(one, pool=pool) for one in rules]
    every = [f"t{number:02}" for number in range(16)]
    for at, (delay_ms, (kind, *rest)) in enumerate(sequence):
        now_ms += delay_ms
        redis_lines.now_ms = now_ms
        rule = chosen[at * len(chosen) // len(sequence)]  # the configuration may change under who waits
        if kind == "enter":
            *asked, forced = rest
            one = Ticket(*asked)
            theirs = await redis_lines.enter(rule, one, forced=forced)
            assert theirs == own.enter(rule, one, now_ms, forced=forced)
        elif kind == "leave":
            assert await redis_lines.leave(rule, rest[0]) == own.leave(rule, rest[0], now_ms)
        else:
            kept = sorted(rest[0])
            pulse = await redis_lines.beat(rule, kept, reap=rest[1])
            assert list(pulse.standings) == own.beat(rule, kept, now_ms, reap=rest[1])
        pulse = await redis_lines.beat(rule, [], reap=False)
        own.beat(rule, [], now_ms, reap=False)
        assert pulse.use == own.use
    last = chosen[-1]
    pulse = await redis_lines.beat(last, every, reap=False)
    assert list(pulse.standings) == own.beat(last, every, now_ms, reap=False)
    for name in every:
        await redis_lines.leave(last, name)


async def test_an_empty_line_leaves_nothing_behind(redis_lines: RedisLines, own_redis: RedisServer) -> None:
    rules = line((1, 1, 1, 1), length=1)
    for number, principal in enumerate("abcd"):
        await redis_lines.enter(rules, ticket(str(number), Priority.P1, 5, principal))
    for number in range(4):
        await redis_lines.leave(rules, str(number))
    with own_redis.client() as client:
        assert client.keys() == []
