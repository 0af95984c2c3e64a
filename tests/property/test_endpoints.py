"""Pending tokens, whatever happens: never negative, each request's given back once, and the choice is the least."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from extproc.config.balancing import Balancing
from extproc.routing.endpoints import NEAR, Choice, Endpoints, Terms, choose
from extproc.routing.pressure import EndpointLoad

ADDRESSES = [f"10.0.0.{number}:8000" for number in range(5)]
STRANGER = "10.9.9.9:1"
addresses = st.sampled_from([*ADDRESSES, STRANGER])
tokens = st.integers(1, 10**6)
shares = st.none() | st.floats(0, 1)


def terms(balancing: Balancing = Balancing.LEAST_TOKENS, count: int = len(ADDRESSES), attempts: int = 3) -> Terms:
    return Terms(balancing, dict.fromkeys(ADDRESSES[:count], 1.0), attempts)


class Traffic(RuleBasedStateMachine):
    """Requests come, are answered by whomever, end in any order; others are heard; endpoints fail, leave and return."""

    def __init__(self) -> None:
        super().__init__()
        self.endpoints = Endpoints(terms())
        self.open: list[Choice] = []
        self.now_s = 0.0

    @rule(amount=tokens)
    def comes(self, amount: int) -> None:
        choice = choose(self.endpoints, amount, self.now_s)
        assert choice is not None
        assert len(set(choice.order)) == len(choice.order) == min(3, len(self.endpoints.terms.weights))
        self.open.append(choice)

    @rule(index=st.integers(0, 100), by=addresses | st.just(""), status=st.sampled_from([200, 400, 429, 500, 503]))
    def is_answered(self, index: int, by: str, status: int) -> None:
        if self.open:
            self.open[index % len(self.open)].answered(status, by, self.now_s)

    @rule(index=st.integers(0, 100), times=st.integers(1, 3))
    def ends(self, index: int, times: int) -> None:
        if self.open:
            choice = self.open.pop(index % len(self.open))
            for _ in range(times):
                choice.release()
            choice.answered(200, ADDRESSES[0], self.now_s)

    @rule(heard=st.dictionaries(addresses, tokens), members=st.integers(0, 8))
    def others_are_heard(self, heard: dict[str, int], members: int) -> None:
        self.endpoints.heard(heard, members, dict(self.endpoints.own))

    @rule(address=addresses)
    def fails(self, address: str) -> None:
        self.endpoints.failed(address, self.now_s)

    @rule(down=st.sets(addresses))
    def are_down(self, down: set[str]) -> None:
        self.endpoints.probed(frozenset(down))

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(
        count=st.integers(1, len(ADDRESSES)), balancing=st.sampled_from([Balancing.LEAST_TOKENS, Balancing.GPU_AWARE])
    )
    def is_reconfigured(self, count: int, balancing: Balancing) -> None:
        self.endpoints.change(terms(balancing, count))

    @invariant()
    def what_is_pending_is_that_of_open_requests(self) -> None:
        open_tokens: Counter[str] = Counter()
        for choice in self.open:
            open_tokens[choice.at] += choice.tokens
        assert self.endpoints.own == open_tokens

    @invariant()
    def scores_are_kept_up_to_date(self) -> None:
        kept = [self.endpoints.score(address) for address in self.endpoints.terms.weights]
        self.endpoints.change(self.endpoints.terms)
        assert kept == [self.endpoints.score(address) for address in self.endpoints.terms.weights]
        assert all(score >= 0 for score in kept)


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(tokens, min_size=5, max_size=5), tokens, st.floats(0, 0.999))
def test_none_is_chosen_that_is_busier_by_more_than_a_little(own: list[int], asked: int, chance: float) -> None:
    endpoints = Endpoints(terms(), lambda: chance)
    for address, amount in zip(ADDRESSES, own, strict=True):
        endpoints.take(address, amount)
    order = endpoints.order(asked, 0.0)
    assert endpoints.pending(order[0]) <= min(own) + NEAR * asked
    rest = [endpoints.pending(address) for address in order[1:]]
    assert rest == sorted(amount for address, amount in zip(ADDRESSES, own, strict=True) if address != order[0])[:2]


@pytest.mark.parametrize("balancing", [Balancing.LEAST_TOKENS, Balancing.GPU_AWARE])
@given(out=st.sets(st.sampled_from(ADDRESSES)), asked=tokens)
def test_who_is_out_comes_last(balancing: Balancing, out: set[str], asked: int) -> None:
    endpoints = Endpoints(terms(balancing, attempts=5))
    endpoints.probed(frozenset(out))
    order = endpoints.order(asked, 0.0)
    assert set(order[len(ADDRESSES) - len(out) :]) == out


@given(queued=shares, kv_cache=shares, gpu=shares, memory=shares)
def test_a_busier_server_is_never_preferred(
    queued: float | None, kv_cache: float | None, gpu: float | None, memory: float | None
) -> None:
    busy = EndpointLoad(0.0, queued, None, kv_cache, gpu, memory)
    idle = EndpointLoad(0.0, *(None if share is None else 0.0 for share in (queued, None, kv_cache, gpu, memory)))
    endpoints = Endpoints(terms(Balancing.GPU_AWARE, count=2))
    endpoints.measured({ADDRESSES[0]: busy, ADDRESSES[1]: idle})
    assert endpoints.score(ADDRESSES[0]) >= endpoints.score(ADDRESSES[1])


@settings(max_examples=30, deadline=None)
@given(members=st.integers(2, 8), requests=st.integers(8, 60))
def test_workers_that_know_the_same_do_not_herd(members: int, requests: int) -> None:
    """Each is told once that one endpoint is idle and the rest are not, and then nothing while all send requests."""
    gap = 10_000
    workers = [Endpoints(terms()) for _ in range(members)]
    busy = dict.fromkeys(ADDRESSES[1:], gap)
    for worker in workers:
        worker.heard(busy, members - 1, {})
    taken: Counter[str] = Counter()
    for worker, _ in itertools.product(workers, range(requests)):
        choice = choose(worker, 1000, 0.0)
        assert choice is not None
        taken[choice.at] += 1000
    # The idle one is filled up to the others' level, or beyond it as far as all are; by one request of each at most.
    level = min(gap + taken[address] for address in ADDRESSES[1:])
    assert taken[ADDRESSES[0]] <= level + 2 * members * 1000
