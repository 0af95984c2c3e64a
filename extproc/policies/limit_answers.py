"""What a client is told of its limits: the rate-limit headers, and the refusals.

`x-ratelimit-{limit,remaining,reset}-{requests,tokens}` speak of the limit with the least left, as OpenAI's do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from extproc.limits import FOREVER_MS, Limit, Measure, State
from extproc.rejection import Rejection, cost_never_fits, quota_exhausted, rate_limited

LONGEST_RETRY_S = 120
"""Clients give up when they are told to wait for longer."""

TOLD = (Measure.REQUESTS, Measure.TOKENS)
"""What the headers speak of."""

_NAMES = {
    Measure.REQUESTS: "requests",
    Measure.TOKENS: "tokens",
    Measure.INPUT_TOKENS: "input tokens",
    Measure.OUTPUT_TOKENS: "output tokens",
    Measure.CONCURRENT: "requests at a time",
    Measure.MONEY: "money",
}

Told = tuple[Limit, State]


def headers(told: Sequence[Told]) -> Iterator[tuple[str, str]]:
    """The headers of a governed response."""
    enforced = [(limit, state) for limit, state in told if not limit.shadow]
    for measure in TOLD:
        of_measure = [(limit, state) for limit, state in enforced if limit.measure is measure]
        if of_measure:
            limit, state = min(of_measure, key=lambda one: one[1].remaining)
            yield f"x-ratelimit-limit-{measure}", str(limit.amount)
            yield f"x-ratelimit-remaining-{measure}", str(state.remaining)
            yield f"x-ratelimit-reset-{measure}", duration(state.reset_ms)
    used = [_used_percent(limit, state) for limit, state in enforced if is_soft(limit, state)]
    if used:
        yield "x-extproc-budget", f"{max(used)}%"


def is_soft(limit: Limit, state: State) -> bool:
    """More of a budget is used than is worth telling."""
    return limit.soft > 0 and limit.amount - state.remaining >= limit.soft


def no_room_for_more() -> Rejection:
    """A limit has no room for asking a second model, and there is no answer of the first."""
    message = "A rate limit or budget has no room for finishing this request. Please try again later."
    return rate_limited(message, "tokens", 1)


def refusal(told: Sequence[Told], retry_ms: int) -> Rejection:
    """Why these states refuse. Names the limit that has to be waited for longest."""
    refusing = [(limit, state) for limit, state in told if state.wait_ms != 0 and not limit.shadow]
    limit, _ = max(refusing, key=lambda one: one[1].wait_ms if one[1].wait_ms >= 0 else FOREVER_MS)
    retry_after_s = LONGEST_RETRY_S if retry_ms < 0 else min(LONGEST_RETRY_S, max(1, -(-retry_ms // 1000)))
    if limit.measure is Measure.MONEY:
        return quota_exhausted("You have used up your budget.", retry_after_s)
    if limit.measure is Measure.CONCURRENT:
        message = f"Too many requests at a time: the limit is {limit.amount}."
    else:
        message = f"Rate limit reached: {limit.amount} {_NAMES[limit.measure]}. Try again in {retry_after_s} s."
    if limit.full:
        message += f" It is usually {limit.full}, and lower now because the model's servers are busy."
    return rate_limited(message, limit.measure, retry_after_s)


def impossible(limit: Limit) -> Rejection:
    """The request is larger than the limit itself."""
    if limit.measure is Measure.MONEY:
        return cost_never_fits("This request costs more than your whole budget.")
    return cost_never_fits(
        f"This request is larger than your limit of {limit.most} {_NAMES[limit.measure]}, so it can never be served."
    )


def duration(ms: int) -> str:
    """As OpenAI writes it: `12ms`, `1s`, `6m0s`, `23h59m1s`."""
    if ms < 1000:
        return f"{ms}ms"
    minutes, seconds = divmod(-(-ms // 1000), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def _used_percent(limit: Limit, state: State) -> int:
    return (limit.amount - state.remaining) * 100 // limit.amount
