"""Which stretches of a long text are worth a closer look: those with words that are said to an assistant about what it
is to do, and that the rest of the text doesn't use.

A cheap hint for where a judge should spend its time, no judgement: a word that is everywhere in the text counts for
little, so padding made of such words hides nothing. Must not know who judges, nor how long a stretch is.
"""

from __future__ import annotations

import functools
import math
import threading
from collections import Counter
from collections.abc import Sequence

import hyperscan

from extproc.detection.database import Keep, database
from extproc.detection.normalise import fold

# How much more often attacks say it than prose does, by eye: clearly, somewhat, a little. Beginnings of words.
_WORDS = {
    4.0: "ignor|disregard|jailbreak|unrestricted|uncensored|unfiltered|verbatim|obey|bypass|overrid|system prompt"
    "|prompt|pretend|role-play|roleplay|persona|from now on|instruction|guideline|restriction",
    2.0: "forget|reveal|you are|your|yourself|must|assistant|chatbot|respond|reply|refus|comply|simulat|imagine|hidden"
    "|secret|confidential|credential|password|previous|prior|earlier|unlock|uncensor|filter|ethic|moral|decode|base64"
    "|rules|policies|policy|admin|developer mode|debug mode|new task|instead|do not mention|don't tell|without telling",
    1.0: "you|ai|model|system|output|print|repeat|answer|act as|character|conversation|context|above|begin|start|task"
    "|send|forward|email|http|execute|run|user|important|attention|note to|please|safety|limit|allowed|message",
}


class StandingOut:
    """The words, compiled. Safe to use from several threads at once."""

    def __init__(self, keep: Keep | None = None) -> None:
        pairs = [(word, weight) for weight, words in _WORDS.items() for word in words.split("|")]
        self._weights = [weight for _, weight in pairs]
        expressions = [rf"\b{word}".encode() for word, _ in pairs]
        self._database = database(expressions, [hyperscan.HS_FLAG_SINGLEMATCH] * len(pairs), keep)
        self._local = threading.local()

    def weigh(self, stretches: Sequence[str]) -> Sequence[float]:
        """How much each of them stands out among all; 0 where nothing does."""
        said = [self._said(fold(stretch)) for stretch in stretches]
        among = Counter(word for words in said for word in words)
        worth = {word: self._weights[word] * math.log(len(stretches) / count) for word, count in among.items()}
        return [sum(worth[word] for word in words) for words in said]

    def _said(self, stretch: str) -> Sequence[int]:
        found: list[int] = []

        def note(word: int, _start: int, _end: int, _flags: int, _context: object) -> None:
            found.append(word)

        self._database.scan(stretch.encode("utf-8", "replace"), match_event_handler=note, scratch=self._scratch())
        return found

    def _scratch(self) -> hyperscan.Scratch:
        scratch: hyperscan.Scratch | None = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = hyperscan.Scratch(self._database)
        return scratch


@functools.cache
def standing_out(keep: Keep | None = None) -> StandingOut:
    """The one of a process."""
    return StandingOut(keep)
