"""What was written in the place of a find, recognised where it comes by again: in an answer, in an earlier turn."""

from __future__ import annotations

import re
from collections.abc import Sequence

from extproc.detection.spans import Span

_PLACEHOLDER = re.compile(r"<[A-Z][A-Z_]{1,40}(?:_[0-9a-z_]{1,32})?>")
_LONGEST_CHARS = 80


def outside_placeholders(text: str, spans: Sequence[Span]) -> Sequence[Span]:
    """Those spans that touch none: to a judge of names `<PERSON>` is one."""
    if not spans or "<" not in text:
        return spans
    return [span for span in spans if not _touches_one(text, span)]


def _touches_one(text: str, span: Span) -> bool:
    near = _PLACEHOLDER.finditer(text, max(0, span.start - _LONGEST_CHARS), span.end + _LONGEST_CHARS)
    return any(match.start() < span.end and span.start < match.end() for match in near)
