"""From evidence to a probability that a text is an attack."""

from __future__ import annotations

import math

RULES_BIAS, RULES_SCALE = -3.5, 1.2
"""Log-odds of the rules' weight: one rule that says attack by itself (4) gives 0.79, a clear one (3) 0.52, a companion
(2) 0.25. Flatter and higher curves fit sets that are half attacks (tests/benchmarks/guard_quality.py --fit); traffic is
not, so a lone hint must not be enough."""


ENCODER_BIAS = -2.2
"""Added to the log-odds of the encoder's head, which was trained on as many attacks as harmless prompts: on the
development half of tests/data/guard some 2 % of the benign prompts are then above 0.5."""

_SMALLEST = 1e-6


def score_of(weight: float, injection: float | None) -> float:
    """`weight` is the rules', `injection` the encoder's probability, None where it said nothing.

    Either witness is enough: the probability that not both are wrong.
    """
    rules = 0.0 if weight <= 0 else _probability(RULES_BIAS + RULES_SCALE * weight)
    if injection is None:
        return rules
    likely = min(max(injection, _SMALLEST), 1.0 - _SMALLEST)
    return 1.0 - (1.0 - rules) * (1.0 - _probability(ENCODER_BIAS + math.log(likely / (1.0 - likely))))


def _probability(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-log_odds))
