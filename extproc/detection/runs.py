"""Text as it is read and as it is written, side by side.

A scanner reads plain text; what is written may be JSON with escapes, or hold a placeholder's original where the scanner
is to see none. A `Run` is a stretch of both. Must not know: what is looked for, and what becomes of it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum

import msgspec
from msgspec import Struct

from extproc.detection.spans import Span

Replace = Callable[[str, str], str]
"""What takes the place of a find, from its entity and its text."""

RESTORED = "\ufffc"
"""What a scanner reads in place of an original that was put back: a letter of no word, number or address."""

_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_encode = msgspec.json.Encoder().encode


class Zone(Enum):
    """Where a run stands, which is how something else is written in its place."""

    PLAIN = "plain"
    JSON_STRING = "json_string"
    JSON_BARE = "json_bare"  # outside strings: structure, numbers, literals


class Run(Struct, frozen=True):
    """`text` is read, `raw` is written. Where they differ it is one letter, which can't be split."""

    text: str
    raw: str
    zone: Zone = Zone.PLAIN


def escaped(text: str, zone: Zone) -> str:
    """`text` as it is written in a zone."""
    if zone is Zone.PLAIN:
        return text
    quoted = _encode(text).decode()
    return quoted if zone is Zone.JSON_BARE else quoted[1:-1]


class RunQueue:
    """Runs in their order, taken by length."""

    __slots__ = ("_offset", "_runs")

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self._runs = deque(runs)
        self._offset = 0  # of the first run, which would else be copied for every piece taken of it

    def put(self, runs: Iterable[Run]) -> None:
        self._runs.extend(runs)

    def take(self, length: int) -> list[Run]:
        """The next runs, of so many letters as they are read."""
        taken: list[Run] = []
        while length > 0:
            run, start = self._runs[0], self._offset
            end = min(len(run.text), start + length)
            if start == 0 and end == len(run.text):
                taken.append(run)
            else:
                taken.append(Run(run.text[start:end], run.raw[start:end], run.zone))
            length -= end - start
            self._offset = end
            if end == len(run.text):
                self._runs.popleft()
                self._offset = 0
        return taken


class JsonReader:
    """A JSON text in any pieces, as runs in which escapes are read. Text that is no JSON is passed on as well as it
    can be: nothing is lost and nothing raised."""

    __slots__ = ("_in_string", "_pending")

    _PART = re.compile(
        r'(?P<plain>[^"\\]+)'
        r'|(?P<end>")'
        r"|\\u(?P<high>[dD][89abAB][0-9a-fA-F]{2})\\u(?P<low>[dD][c-fC-F][0-9a-fA-F]{2})"
        r"|\\u(?P<unit>[0-9a-fA-F]{4})"
        r"|\\(?P<letter>[^u])"
        r"|(?P<broken>\\u[0-9a-fA-F]{0,3}(?=[^0-9a-fA-F]))",
        re.DOTALL,
    )
    _INCOMPLETE = re.compile(
        r"\\(?:u(?:[0-9a-fA-F]{0,3}|[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?)?)?\Z"
    )

    def __init__(self) -> None:
        self._in_string = False
        self._pending = ""

    def feed(self, text: str) -> list[Run]:
        text, self._pending = self._pending + text, ""
        runs: list[Run] = []
        position = 0
        while position < len(text):
            if self._in_string:
                if self._INCOMPLETE.match(text, position):
                    self._pending = text[position:]
                    break
                position = self._string_part(text, position, runs)
            else:
                quote = text.find('"', position)
                end = len(text) if quote < 0 else quote + 1
                runs.append(Run(text[position:end], text[position:end], Zone.JSON_BARE))
                self._in_string = quote >= 0
                position = end
        return runs

    def finish(self) -> list[Run]:
        """An escape that was cut short."""
        pending, self._pending = self._pending, ""
        return [Run(letter, letter, Zone.JSON_STRING) for letter in pending]

    def _string_part(self, text: str, position: int, runs: list[Run]) -> int:
        match = self._PART.match(text, position)
        assert match is not None, "an escape is whole, broken or incomplete"
        raw, kind = match[0], match.lastgroup
        if kind == "plain" or kind == "broken":
            runs.append(Run(raw, raw, Zone.JSON_STRING))
        elif kind == "end":
            runs.append(Run(raw, raw, Zone.JSON_BARE))
            self._in_string = False
        else:
            runs.append(Run(self._letter(match), raw, Zone.JSON_STRING))
        return match.end()

    def _letter(self, match: re.Match[str]) -> str:
        if match["high"] is not None:
            return chr(0x10000 + ((int(match["high"], 16) - 0xD800) << 10) + int(match["low"], 16) - 0xDC00)
        if match["unit"] is not None:
            unit = int(match["unit"], 16)
            return "\ufffd" if 0xD800 <= unit < 0xE000 else chr(unit)
        return _LETTERS.get(match["letter"], match["letter"])


def write(queue: RunQueue, text: str, spans: Sequence[Span], replace: Replace) -> str:
    """The next runs of the queue, which read `text`, with what was found in them replaced.

    Spans are of that text, in order, without overlaps.
    """
    written: list[str] = []
    at = 0
    for span in spans:
        written += [run.raw for run in queue.take(span.start - at)]
        written.append(_replaced(queue.take(span.end - span.start), span.entity, replace))
        at = span.end
    written += [run.raw for run in queue.take(len(text) - at)]
    return "".join(written)


def _replaced(runs: Sequence[Run], entity: str, replace: Replace) -> str:
    """A find: what is JSON's structure stays, what was put back stays, what is left around it is replaced."""
    zones = {run.zone for run in runs}
    if len(zones) == 1 and all(run.text != RESTORED for run in runs):
        return escaped(replace(entity, "".join(run.text for run in runs)), runs[0].zone)
    written: list[str] = []
    found: list[Run] = []
    for run in (*runs, Run(RESTORED, "")):
        if run.text != RESTORED and run.zone is not Zone.JSON_BARE and (not found or found[0].zone is run.zone):
            found.append(run)
            continue
        if found:
            written.append(escaped(replace(entity, "".join(part.text for part in found)), found[0].zone))
            found = []
        written.append(run.raw)
    return "".join(written)
