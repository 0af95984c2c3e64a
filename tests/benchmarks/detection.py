"""What searching for personal data costs: `python -m tests.benchmarks.detection`. Best of several, one thread."""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable

from extproc.detection.scanner import PatternScanner, Selection

PROSE = (
    "The quick brown fox jumps over the lazy dog near the river, and nobody in the village was surprised that it did "
    "so again. Please review the attached contract before Monday and send your comments to the legal team; they will "
    "answer within 3 days. "
)
HITS = (
    " My card is 4111 1111 1111 1111, mail jane.doe@example.com or call +1 415 555 0132. SSN 123-45-6780, "
    "IBAN DE89370400440532013000, ip 192.168.10.5. "
)
PROMPT = (PROSE * 4)[:1000] + HITS + (PROSE * 8)[: 2048 - 1000 - len(HITS)]


def best_us(call: Callable[[], object], number: int) -> float:
    return min(timeit.repeat(call, number=number, repeat=7)) / number * 1e6


def throughput(scanner: PatternScanner, text: str) -> float:
    best_s = 1e9
    for _ in range(5):
        begin = time.perf_counter()
        scanner.scan(text)
        best_s = min(best_s, time.perf_counter() - begin)
    return len(text) / best_s / 1e6


def stream_us(scanner: PatternScanner, text: str, piece: int) -> float:
    """Microseconds a piece, over the whole of a stream."""
    pieces = [text[at : at + piece] for at in range(0, len(text), piece)]
    best_s = 1e9
    for _ in range(7):
        stream = scanner.open()
        begin = time.perf_counter()
        for part in pieces:
            stream.feed(part)
        stream.close()
        best_s = min(best_s, time.perf_counter() - begin)
    return best_s / len(pieces) * 1e6


def main() -> None:
    begin = time.perf_counter()
    scanner = PatternScanner.compile(Selection())
    print(f"compile every pattern        {time.perf_counter() - begin:8.2f} s")
    hits = len(scanner.scan(PROMPT))
    print(f"2 KB with {hits} hits             {best_us(lambda: scanner.scan(PROMPT), 200):8.1f} µs")
    plain = (PROSE * 10)[:2048]
    print(f"2 KB without a hit           {best_us(lambda: scanner.scan(plain), 200):8.1f} µs")
    print(f"4 MB of prose                {throughput(scanner, (PROSE * 20000)[:4_000_000]):8.1f} MB/s")
    print(f"4 MB, a hit every 340 bytes  {throughput(scanner, (PROMPT * 2000)[:4_000_000]):8.1f} MB/s")
    for piece in (5, 20, 100):
        print(f"stream, pieces of {piece:<4} chars {stream_us(scanner, PROMPT * 5, piece):8.1f} µs a piece")


if __name__ == "__main__":
    main()
