"""Tokens to text, one token at a time. Owns: never half a character, never any part of a stop sequence."""

from collections.abc import Callable


class Detokenizer:
    def __init__(self, decode: Callable[[list[int]], str | None], stop: tuple[str, ...]) -> None:
        """`decode` gives None where the tokens do not end on a whole character."""
        self._decode = decode
        self._stop = stop
        self._incomplete: list[int] = []
        self._held = ""
        self.stopped = False

    def feed(self, token_id: int) -> str:
        """The text that is now certain to belong to the answer; often empty."""
        self._incomplete.append(token_id)
        text = self._decode(self._incomplete)
        if text is None:
            return ""
        self._incomplete.clear()
        return self._release(self._held + text)

    def flush(self) -> str:
        """What was held back for a stop sequence that never came."""
        held, self._held = self._held, ""
        return held

    def _release(self, text: str) -> str:
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that could be the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
