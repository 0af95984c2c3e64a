"""From evidence to a probability that a text is an attack.

The numbers are fitted by tests/benchmarks/guard_quality.py, on the development half of the sets in tests/data/guard.
"""

from __future__ import annotations

import math

RULES_BIAS, RULES_SCALE = -3.5, 1.2
"""Log-odds of the rules' weight."""


def score_of(weight: float, injection: float | None) -> float:
    """`weight` is the rules', `injection` the encoder's probability, None where it said nothing.

    Either witness is enough: the probability that not both are wrong.
    """
    rules = 0.0 if weight <= 0 else 1.0 / (1.0 + math.exp(-(RULES_BIAS + RULES_SCALE * weight)))
    return rules if injection is None else 1.0 - (1.0 - rules) * (1.0 - injection)
