"""Assignment to arms: always the same, by the weights, and moved no more than a change of weights asks for."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.config.experiments import Arm, Experiment
from extproc.routing.experiments import experiment_of

NAMES = [f"arm-{number}" for number in range(5)]
SUBJECTS = [f"user-{number}" for number in range(3000)]
weights = st.lists(st.integers(0, 100), min_size=2, max_size=5).filter(any)
pairs = st.integers(2, 5).flatmap(
    lambda arms: st.tuples(*[st.lists(st.integers(0, 100), min_size=arms, max_size=arms).filter(any) for _ in range(2)])
)


def experiment(salt: str = "s"):  # type: ignore[no-untyped-def]
    return experiment_of("x", Experiment(arms={name: Arm(pool="p") for name in NAMES}, control=NAMES[0], salt=salt))


def named(values: list[int]) -> Mapping[str, float]:
    return dict(zip(NAMES, values, strict=False))


def assigned(values: list[int], salt: str = "s") -> list[str]:
    one, by_name = experiment(salt), named(values)
    return [one.assign(subject, by_name) for subject in SUBJECTS]


def shares(values: list[int]) -> list[float]:
    return [value / sum(values) for value in values]


@given(weights)
@settings(max_examples=25)
def test_arms_get_their_share(values: list[int]) -> None:
    counts = Counter(assigned(values))
    for name, share in zip(NAMES, shares(values), strict=False):
        spread = 5 * math.sqrt(len(SUBJECTS) * share * (1 - share)) + 1
        assert abs(counts[name] - share * len(SUBJECTS)) <= spread


@given(pairs)
@settings(max_examples=40)
def test_who_moves_moves_to_an_arm_that_grew_against_the_one_that_is_left(pair: tuple[list[int], list[int]]) -> None:
    """So nobody moves between arms whose proportion stayed, and of two arms none back and forth: exactly what must."""
    before, after = map(named, pair)
    for old, new in zip(*map(assigned, pair), strict=True):
        if old != new:
            assert after[new] * before[old] > before[new] * after[old]


@given(pairs)
@settings(max_examples=25)
def test_no_more_move_than_a_stateless_rule_has_to(pair: tuple[list[int], list[int]]) -> None:
    least = sum(abs(a - b) for a, b in zip(*map(shares, pair), strict=True)) / 2
    bound = 2 * least / (1 + least) if len(pair[0]) > 2 else least
    moved = sum(old != new for old, new in zip(*map(assigned, pair), strict=True)) / len(SUBJECTS)
    assert moved <= bound + 5 * math.sqrt(bound * (1 - bound) / len(SUBJECTS)) + 1 / len(SUBJECTS)


def test_from_90_10_to_80_20_moves_a_tenth_and_all_of_it_one_way() -> None:
    before, after = assigned([90, 10]), assigned([80, 20])
    moves = Counter((old, new) for old, new in zip(before, after, strict=True) if old != new)
    assert set(moves) == {("arm-0", "arm-1")}
    assert moves.total() == Counter(after)["arm-1"] - Counter(before)["arm-1"]
    assert abs(moves.total() / len(SUBJECTS) - 0.1) < 0.03


def test_another_salt_is_another_draw_and_independent_of_the_first() -> None:
    both = Counter(zip(assigned([50, 50], "one"), assigned([50, 50], "two"), strict=True))
    for count in both.values():
        assert abs(count / len(SUBJECTS) - 0.25) < 0.05


def test_every_process_draws_the_same() -> None:
    program = "import sys; sys.path.insert(0, '.'); from tests.property.test_experiments import assigned; "
    program += "import hashlib; print(hashlib.sha256(repr(assigned([3, 1, 2])).encode()).hexdigest())"
    seen = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env).stdout
        for env in ({"PYTHONHASHSEED": "1", "PATH": "/usr/bin:/bin"}, {"PYTHONHASHSEED": "2", "PATH": "/usr/bin:/bin"})
    }
    assert len(seen) == 1
