"""How much a request will probably use: its prompt, its cap, and what this key's answers from this model were like.

In the memory of one worker; a wrong guess costs only a reservation that is too large or is drawn up in mid-stream.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from extproc.operation import Operation
from extproc.policies.context import RequestContext

QUANTILE = 0.9
_REMEMBERED = 64
_ENOUGH = 5
_CAPACITY = 10_000
_GENERATING = frozenset({Operation.CHAT, Operation.COMPLETIONS})
_BYTES_PER_TOKEN = 4


def prompt_tokens(ctx: RequestContext) -> int:
    """Exact where the model's tokenizer is configured."""
    return len(ctx.body) // _BYTES_PER_TOKEN if ctx.prompt_tokens is None else ctx.prompt_tokens


def cap_tokens(ctx: RequestContext) -> int:
    """The longest that all its answers together can become."""
    request = ctx.request
    if request.operation not in _GENERATING:
        return 0
    asked = request.output_limit_tokens
    return (ctx.default_output_tokens if asked is None else asked) * request.choices


def expected_tokens(ctx: RequestContext) -> int:
    """What it will use: its prompt, and the answer as `limit` expects it; the cap where `limit` has nothing to do."""
    held = ctx.held
    if held is not None and held.applied:
        return held.size.prompt_tokens + held.size.output_tokens
    return prompt_tokens(ctx) + cap_tokens(ctx)


class ExpectedOutput:
    """Of each key and model."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str], deque[int]] = OrderedDict()

    def expect(self, key: str, model: str, cap_tokens: int) -> int:
        """Never more than the cap, which it is while too little is known."""
        seen = self._seen.get((key, model))
        if seen is None or len(seen) < _ENOUGH:
            return cap_tokens
        return min(cap_tokens, sorted(seen)[int(QUANTILE * (len(seen) - 1) + 0.999)])

    def learn(self, key: str, model: str, output_tokens: int) -> None:
        seen = self._seen.get((key, model))
        if seen is None:
            seen = self._seen[key, model] = deque(maxlen=_REMEMBERED)
            if len(self._seen) > _CAPACITY:
                self._seen.popitem(last=False)
        else:
            self._seen.move_to_end((key, model))
        seen.append(output_tokens)
