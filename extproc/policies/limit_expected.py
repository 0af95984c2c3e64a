"""How long an answer will probably be: a quantile of what this key got from this model lately.

In the memory of one worker; a wrong guess costs only a reservation that is too large or is drawn up in mid-stream.
"""

from __future__ import annotations

from collections import OrderedDict, deque

QUANTILE = 0.9
_REMEMBERED = 64
_ENOUGH = 5
_CAPACITY = 10_000


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
