"""Endpoints that the service chooses: what makes one the best, who is out, and for how long."""

from __future__ import annotations

from collections import Counter

import pytest

from extproc import config
from extproc.config.address import parse_tcp
from extproc.config.balancing import Balancing, GpuAware
from extproc.routing.endpoint_book import EndpointBook, envoys_spelling
from extproc.routing.endpoints import Endpoints, Terms, choose
from extproc.routing.envoy_health import unhealthy
from extproc.routing.pressure import EndpointLoad

A, B, C = "10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"


def pool(balancing: Balancing = Balancing.LEAST_TOKENS, **weights: float) -> Endpoints:
    named = {{"a": A, "b": B, "c": C}[name]: weight for name, weight in weights.items()}
    return Endpoints(Terms(balancing, named or {A: 1.0, B: 1.0, C: 1.0}))


def first(endpoints: Endpoints, now_s: float = 0.0, tokens: int = 10) -> str:
    return endpoints.order(tokens, now_s)[0]


def test_it_is_the_one_with_the_fewest_tokens_pending() -> None:
    endpoints = pool()
    endpoints.take(A, 500)
    endpoints.heard({B: 400}, 1, dict(endpoints.own))
    assert endpoints.order(10, 0.0) == (C, B, A)
    endpoints.take(C, 450)
    # The other worker presumably has added as much there.
    assert endpoints.pending(C) == 900
    assert first(endpoints) == B


def test_a_cluster_with_more_weight_takes_more() -> None:
    endpoints = pool(a=1.5, b=0.5)
    taken: Counter[str] = Counter()
    for _ in range(400):
        choice = choose(endpoints, 100, 0.0)
        assert choice is not None
        taken[choice.at] += 1
    assert 290 <= taken[A] <= 310


def test_among_equals_it_is_by_chance() -> None:
    assert {first(pool()) for _ in range(100)} == {A, B, C}
    endpoints = pool()
    endpoints.take(A, 99)
    assert {first(endpoints, tokens=1000) for _ in range(100)} == {A, B, C}
    assert {first(endpoints, tokens=100) for _ in range(100)} == {B, C}


def test_of_many_endpoints_the_alternatives_are_good_ones() -> None:
    many = Endpoints(Terms(Balancing.LEAST_TOKENS, {f"10.0.0.1:{port}": 1.0 for port in range(1, 513)}))
    for port in range(1, 513):
        many.take(f"10.0.0.1:{port}", port * 1000)
    ranks = [[int(address.partition(":")[2]) for address in many.order(10, 0.0)] for _ in range(200)]
    assert {rank[0] for rank in ranks} == {1}
    assert all(len(rank) == 3 and rank[1] <= rank[2] for rank in ranks)
    assert sum(rank[1] for rank in ranks) / len(ranks) < 100


def test_one_failure_takes_it_out_and_one_request_tries_it_again() -> None:
    endpoints = pool(a=1, b=1)
    endpoints.failed(A, 100.0)
    endpoints.failed(A, 100.1)  # had been on its way
    assert {first(endpoints, 100.9) for _ in range(50)} == {B}
    endpoints.take(B, 1000)
    assert [first(endpoints, 101.0) for _ in range(3)] == [A, B, B]
    endpoints.failed(A, 101.1)  # twice as long
    assert first(endpoints, 103.0) == B
    assert [first(endpoints, 103.2) for _ in range(3)] == [A, B, B]
    endpoints.answered(A)
    assert {first(endpoints, 103.3) for _ in range(50)} == {A}


def test_a_trial_that_nobody_tells_of_is_made_again() -> None:
    endpoints = pool(a=1, b=1)
    endpoints.failed(A, 0.0)
    endpoints.take(B, 1000)
    assert [first(endpoints, 1.0) for _ in range(2)] == [A, B]
    assert [first(endpoints, 2.0) for _ in range(2)] == [A, B]


def test_it_is_never_out_for_longer_than_is_configured() -> None:
    endpoints = pool(a=1, b=1)
    now_s = 0.0
    endpoints.take(B, 1000)
    for _ in range(40):
        endpoints.failed(A, now_s)
        now_s += 10.0
        assert first(endpoints, now_s) == A


def test_when_all_are_out_the_order_is_the_usual_one() -> None:
    endpoints = pool()
    endpoints.probed(frozenset({A, B, C}))
    endpoints.take(A, 500)
    endpoints.take(B, 400)
    assert endpoints.order(10, 0.0) == (C, B, A)


def answered(status: int, by: str) -> Endpoints:
    """After one answer to a request for which Envoy was told A, then B."""
    endpoints = pool(a=1, b=1)
    endpoints.take(B, 100)
    choice = choose(endpoints, 10, 0.0)
    assert choice is not None
    assert choice.order == (A, B)
    choice.answered(status, by, 0.0)
    return endpoints


@pytest.mark.parametrize(
    ("status", "by", "out"),
    [
        (200, A, []),
        (200, B, [A]),  # A was tried, and did not do it
        (200, "", []),  # nobody says
        (503, "", []),
        (500, A, [A]),
        (503, B, [A, B]),
        (400, A, []),
        (400, B, []),  # both say that the request is wrong
        (429, B, []),  # both have enough to do
        (200, "10.9.9.9:1", [A, B]),  # Envoy was left to choose
    ],
)
def test_who_has_failed(status: int, by: str, out: list[str]) -> None:
    endpoints = answered(status, by)
    assert [address for address in (A, B) if endpoints.is_out(address)] == out


def test_of_what_envoy_was_not_told_nobody_has_failed() -> None:
    endpoints = pool(a=1, b=1)
    endpoints.take(B, 100)
    choice = choose(endpoints, 10, 0.0, named=False)
    assert choice is not None
    choice.answered(200, B, 0.0)
    assert [address for address in (A, B) if endpoints.is_out(address)] == []
    assert endpoints.own == {B: 110}


def test_tokens_are_counted_where_the_answer_comes_from() -> None:
    assert answered(200, B).own == {B: 110}
    assert answered(200, "10.9.9.9:1").own == {B: 100, "10.9.9.9:1": 10}


def load(**said: float) -> EndpointLoad:
    return EndpointLoad(0.0, **said)


@pytest.mark.parametrize("signal", [{"queued": 8.0}, {"kv_cache": 0.5}, {"gpu": 0.5}, {"gpu_memory": 0.5}])
def test_each_signal_makes_a_server_busy(signal: dict[str, float]) -> None:
    endpoints = pool(Balancing.GPU_AWARE, a=1, b=1)
    endpoints.measured({A: load(**signal), B: load(**dict.fromkeys(signal, 0.0))})
    assert {first(endpoints) for _ in range(50)} == {B}


def test_what_is_pending_counts_beside_what_servers_say() -> None:
    endpoints = pool(Balancing.GPU_AWARE, a=1, b=1)
    endpoints.measured({A: load(kv_cache=0.5), B: load(kv_cache=0.0)})
    assert first(endpoints) == B
    endpoints.take(B, GpuAware().full_tokens)
    assert first(endpoints) == A


def test_a_server_that_says_nothing_counts_as_the_busiest() -> None:
    endpoints = pool(Balancing.GPU_AWARE)
    endpoints.measured({A: load(kv_cache=0.5), B: load(kv_cache=0.1)})
    assert endpoints.busy(C) == endpoints.busy(A) > endpoints.busy(B)
    endpoints.measured({})
    assert [endpoints.busy(address) for address in (A, B, C)] == [0, 0, 0]


CONFIG = """
keys: {{hash_secret: 0123456789abcdef}}
models: {{m: {{pool: p, operations: [chat], context_window: 100}}}}
pools:
  p:
    dialect: openai
    model: x
    balancing: {balancing}
    clusters:
      a: {{weight: 1, endpoints: ["10.0.0.1:8000", "10.0.0.2:8000"]}}
      b: {{weight: 4, endpoints: ["[2001:DB8::0:1]:8000"]}}
      off: {{weight: 0, endpoints: ["10.0.0.3:8000"]}}
"""


def test_what_is_pending_outlasts_a_new_configuration() -> None:
    book = EndpointBook()
    assert not book
    book.take_up(config.parse(CONFIG.format(balancing="least_tokens"), {}, {}))
    endpoints = book.of("p")
    assert endpoints is not None
    assert endpoints.terms.weights == pytest.approx({A: 0.3, B: 0.3, "[2001:db8::1]:8000": 2.4})
    choice = choose(endpoints, 10, 0.0)
    assert choice is not None
    changed = CONFIG.format(balancing="least_tokens").replace("weight: 4", "weight: 1")
    book.take_up(config.parse(changed, {}, {}))
    assert book.of("p") is endpoints
    assert endpoints.own == {choice.at: 10}
    book.take_up(config.parse(CONFIG.format(balancing="round_robin"), {}, {}))
    assert book.of("p") is None
    choice.release()
    assert endpoints.own == {}


def test_addresses_are_spelled_as_envoy_does() -> None:
    assert envoys_spelling(parse_tcp("[2001:DB8:0::1]:80")) == "[2001:db8::1]:80"
    assert envoys_spelling(parse_tcp("10.0.0.1:80")) == A.replace("8000", "80")


PAGE = """p/all/endpoints::10.0.0.1:8000::health_flags::healthy
p/all/endpoints::10.0.0.2:8000::health_flags::/failed_active_hc
p/all/endpoints::10.0.0.2:8000::weight::1
q/c::[2001:db8::1]:8000::health_flags::/failed_outlier_check
extproc::/run/extproc.sock::health_flags::/failed_active_hc
"""


def test_who_is_unhealthy_is_read_from_envoys_page() -> None:
    assert unhealthy(PAGE) == {"p": {B}, "q": {"[2001:db8::1]:8000"}}
    assert unhealthy("") == {}
