"""From evidence to a probability that a text is an attack."""

from __future__ import annotations

import math

RULES_BIAS, RULES_SCALE = -3.5, 1.2
"""Log-odds of the rules' weight: one rule that says attack by itself (4) gives 0.79, a clear one (3) 0.52, a companion
(2) 0.25. Flatter and higher curves fit sets that are half attacks (tests/benchmarks/guard_quality.py --fit); traffic is
not, so a lone hint must not be enough."""


def score_of(weight: float, injection: float | None) -> float:
    """`weight` is the rules', `injection` the encoder's probability, None where it said nothing.

    Either witness is enough: the probability that not both are wrong.
    """
    rules = 0.0 if weight <= 0 else 1.0 / (1.0 + math.exp(-(RULES_BIAS + RULES_SCALE * weight)))
    return rules if injection is None else 1.0 - (1.0 - rules) * (1.0 - injection)
