"""The pressure on a pool, and its level: hysteresis that never flaps, and nothing known that changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.config.pools import PressureSignal
from extproc.routing.pressure import EndpointLoad, Ladder, Levels, Rung, mean_pressure

QUEUE, GPU, KV_CACHE = PressureSignal
LADDER = Ladder((Rung(0.7, 0.5), Rung(0.85, 0.6), Rung(0.95, 0.8)), dwell_s=10.0, hold_unknown_s=30.0)
pressures = st.floats(0, 1)
steps_s = st.floats(0.1, 20)


def raised(level: int) -> Levels:
    """Levels that stand at `level`, at the time 0."""
    levels = Levels(LADDER)
    for _ in range(level):
        levels.update(1.0, 0.0)
    assert levels.level == level
    return levels


class TestEndpoint:
    load = EndpointLoad(0.0, queued=4, kv_cache=0.9, gpu=0.3)

    @pytest.mark.parametrize(
        ("signals", "pressure"),
        [((QUEUE,), 0.5), ((GPU,), 0.3), ((QUEUE, GPU), 0.5), ((QUEUE, GPU, KV_CACHE), 0.9)],
    )
    def test_the_highest_of_the_signals(self, signals: tuple[PressureSignal, ...], pressure: float) -> None:
        assert self.load.pressure(signals, full_queue=8) == pressure

    def test_a_queue_beyond_full_is_full(self) -> None:
        assert EndpointLoad(0.0, queued=50).pressure((QUEUE, GPU), full_queue=8) == 1.0

    def test_what_was_not_said_is_not_zero(self) -> None:
        assert EndpointLoad(0.0, running=3).pressure((QUEUE, GPU), full_queue=8) is None

    def test_the_mean_is_by_weight_and_leaves_out_who_is_silent(self) -> None:
        assert mean_pressure([(3, 1.0), (1, 0.2), (10, None)]) == pytest.approx(0.8)
        assert mean_pressure([(0, 1.0), (1, 0.2)]) == pytest.approx(0.2)
        assert mean_pressure([(1, None), (0, 1.0)]) is None


class TestLevels:
    def test_up_one_at_a_time(self) -> None:
        levels = Levels(LADDER)
        assert [levels.update(pressure, 0.0) for pressure in (0.69, 0.7, 0.84, 1.0, 1.0, 1.0)] == [0, 1, 1, 2, 3, 3]

    def test_down_one_at_a_time_after_a_calm_that_lasts(self) -> None:
        levels = raised(2)
        said = [(0.6, 1.0), (0.6, 10.9), (0.6, 11.0), (0.5, 20.9), (0.5, 21.0)]
        assert [levels.update(*one) for one in said] == [2, 2, 1, 1, 0]

    def test_a_calm_that_is_broken_begins_anew(self) -> None:
        levels = raised(1)
        said = [(0.1, 1.0), (0.51, 9.0), (0.1, 10.0), (0.1, 19.9), (0.1, 20.0)]
        assert [levels.update(*one) for one in said] == [1, 1, 1, 1, 0]

    def test_what_is_not_known_holds_and_then_loosens_step_by_step(self) -> None:
        levels = raised(2)
        said = [(None, 1.0), (None, 30.9), (None, 31.0), (None, 40.9), (None, 41.0), (None, 51.0), (None, 90.0)]
        assert [levels.update(*one) for one in said] == [2, 2, 2, 2, 1, 0, 0]

    def test_a_gap_is_not_calm(self) -> None:
        levels = raised(1)
        said = [(0.1, 1.0), (None, 2.0), (0.1, 12.0), (0.1, 21.9), (0.1, 22.0)]
        assert [levels.update(*one) for one in said] == [1, 1, 1, 1, 0]

    def test_a_ladder_that_became_shorter(self) -> None:
        assert Levels(Ladder(LADDER.rungs[:1]), level=3).level == 1
        assert Levels(Ladder()).update(1.0, 0.0) == 0

    @given(level=st.integers(0, 3), said=st.lists(st.tuples(pressures, steps_s), max_size=40))
    def test_within_the_band_it_never_moves(self, level: int, said: list[tuple[float, float]]) -> None:
        levels, now_s = raised(level), 0.0
        rungs = LADDER.rungs
        lowest = rungs[level - 1].leave if level else -1.0
        highest = rungs[level].enter if level < len(rungs) else 2.0
        for pressure, step_s in said:
            now_s += step_s
            if lowest < pressure < highest:
                assert levels.update(pressure, now_s) == level

    @given(said=st.lists(st.tuples(st.one_of(st.none(), pressures), steps_s), max_size=60))
    def test_it_never_turns_back_within_the_dwell(self, said: list[tuple[float | None, float]]) -> None:
        """After any change, the next one down is `dwell_s` away at least; nothing known never tightens."""
        levels, now_s, changed_s, level = Levels(LADDER), 0.0, -1e9, 0
        for pressure, step_s in said:
            now_s += step_s
            after = levels.update(pressure, now_s)
            assert abs(after - level) <= 1
            if pressure is None:
                assert after <= level
            if after < level:
                assert now_s - changed_s >= LADDER.dwell_s
            if after != level:
                level, changed_s = after, now_s
