"""How often the encoder reads an attack that stands in padding longer than its budget: `python -m
tests.benchmarks.guard_coverage`.

Our own attacks, with what stands out read first and without. No model runs: an attack counts as read if one of the
windows that the encoder was given has its beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from extproc.clock import Clock
from extproc.detection import attacks
from extproc.detection.standing_out import StandingOut, standing_out
from extproc.inference.interface import Encoding
from extproc.inference.windows import windows
from extproc.policies.guard import Judged, ask
from extproc.policies.guard_result import Kind
from extproc.policies.scan import Importance, Scan
from extproc.policies.scan_texts import Settings as ScanSettings
from tests.helpers.guard_sets import HIDING, own

_BEGINNING_CHARS = 60


class Reader:
    """An encoder that only notes what it is given."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def windows(self, text: str) -> Sequence[tuple[int, int]]:
        return windows(text)

    async def encode(self, texts: Sequence[str], deadline_s: float) -> Sequence[Encoding]:
        self.read += texts
        return [Encoding(b"") for _ in texts]


class Nothing(StandingOut):
    """To it, nothing stands out."""

    def weigh(self, stretches: Sequence[str]) -> Sequence[float]:
        return [0.0] * len(stretches)


async def is_read(attack: str, text: str, outstanding: StandingOut) -> bool:
    reader = Reader()
    scan = Scan(reader, ScanSettings().budget_windows, 60.0, Clock())
    scan.want(text, Importance.LAST_USER_TURN)
    scan.begin()
    await ask(scan, [Judged(Kind.USER, text, attacks.rules().search(text))], outstanding)
    return any(attack[:_BEGINNING_CHARS] in window for window in reader.read)


async def main() -> None:
    print("| half | padding | with what stands out | without |\n|---|---|---|---|")
    ways = (standing_out(), Nothing())
    for development in (True, False):
        texts = [one.text for one in own() if one.attack and one.development is development]
        for name in ("padded", "padded with 200 KB", "in 200 KB of documentation"):
            shares = []
            for outstanding in ways:
                read = [await is_read(text, HIDING[name](text), outstanding) for text in texts]
                shares.append(sum(read) / len(read))
            print(f"| {'development' if development else 'the other'} | {name} | {shares[0]:.0%} | {shares[1]:.0%} |")


if __name__ == "__main__":
    asyncio.run(main())
