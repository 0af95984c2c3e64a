"""Where a model is served while service and Envoy do not yet know the same configuration."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from extproc import config
from extproc.policies import pipeline
from extproc.routing import catalog
from extproc.routing.catalog import Catalog

POOLS = ("p", "q", "r", "s")


def configured(pool: str, context_window: int = 100) -> config.GatewayConfig:
    return config.parse(
        f"""
        keys: {{hash_secret: 0123456789abcdef}}
        models: {{m: {{pool: {pool}, operations: [chat], context_window: {context_window}}}}}
        pools: {{{pool}: {{dialect: openai, model: x, clusters: {{c: {{endpoints: ["127.0.0.1:1"]}}}}}}}}
        """,
        pipeline.SETTINGS,
        {},
    )


def after(pools: Sequence[str]) -> Catalog:
    """The catalog after these configurations, one after the other."""
    latest: Catalog | None = None
    for number, pool in enumerate(pools):
        latest = catalog.build(configured(pool, 100 + number), latest)
    assert latest is not None
    return latest


@settings(deadline=None)  # the first configuration takes longer than the others
@given(st.lists(st.sampled_from(POOLS), min_size=1, max_size=8), st.sets(st.sampled_from(POOLS)))
def test_it_is_served_as_it_was_last_in_a_pool_that_can_be_reached(pools: list[str], reachable: set[str]) -> None:
    served = after(pools).served("m", reachable)
    numbers = [number for number, pool in enumerate(pools) if pool in reachable]
    if served is None:
        assert not numbers
    else:
        assert served.pool.name == pools[numbers[-1]]
        assert served.config.context_window == 100 + numbers[-1]


@settings(deadline=None)  # the first configuration takes longer than the others
@given(st.lists(st.sampled_from(POOLS), min_size=1, max_size=8))
def test_an_envoy_that_says_nothing_gets_the_newest(pools: list[str]) -> None:
    served = after(pools).served("m", None)
    assert served is not None
    assert served.pool.name == pools[-1]


def test_what_is_remembered_has_a_bound() -> None:
    latest = after([f"p{number}" for number in range(100)])
    assert len(latest.earlier["m"]) == 16
    assert latest.served("m", {"p98"}) is not None
