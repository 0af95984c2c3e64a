"""What the guard's rules and an audit record cost, on one thread.

python -m tests.benchmarks.guard_speed
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from extproc.audit.files import ChainFiles, Rotation
from extproc.audit.record import Action, Entry
from extproc.detection import attacks
from extproc.detection.attacks import AttackRules

_PLAIN = "The harbour was quiet that morning, and the boats of the fishermen lay still in the first light. "
_BAIT = "a1 " * 100


def p50_s(work: Callable[[], object], times: int) -> float:
    took = []
    for _ in range(times):
        began_s = time.perf_counter()
        work()
        took.append(time.perf_counter() - began_s)
    return statistics.median(took)


def main() -> None:
    began_s = time.process_time()
    AttackRules()
    print(f"compiling the rules, once a process: {time.process_time() - began_s:.1f} s of CPU")
    rules = attacks.rules()
    for name, text, times in (
        ("2 KB of prose", (_PLAIN * 30)[:2048], 1000),
        ("200 KB of prose", _PLAIN * 2100, 50),
        ("200 KB that looks disguised everywhere", _BAIT * 680, 10),
    ):
        print(f"{name}: {p50_s(lambda text=text: rules.search(text), times) * 1e3:.3f} ms")  # type: ignore[misc]
    entry = Entry(time_s=0.0, actor="key-1", action=Action.BLOCKED, policy="guard", reason="injection")
    with tempfile.TemporaryDirectory() as directory:
        chain = ChainFiles(Path(directory), b"a-secret-of-enough-letters", Rotation())
        print(f"one audit record, on disk: {p50_s(lambda: chain.append([entry]), 200) * 1e3:.2f} ms")
        batch = [entry] * 256
        print(f"256 audit records together: {p50_s(lambda: chain.append(batch), 50) * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
