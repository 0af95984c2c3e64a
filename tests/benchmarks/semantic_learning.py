"""Whether learned thresholds keep to their target: users report every wrong answer, on pairs nothing was tuned on.

    python tests/benchmarks/semantic_learning.py [--questions 40] [--asked 8000]

Similarity alone decides (no guard, no verifier), so that there are wrong answers to report. With and without reports.
"""

from __future__ import annotations

import argparse
import asyncio
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from extproc.caching import Learning
from extproc.clock import Clock
from extproc.policies.semantic_settings import Settings
from extproc.stores.answers import RedisAnswers
from tests.helpers.redis import RedisServer
from tests.helpers.reports import Outcome, Reporters, embeddings
from tests.helpers.semantic import UNSEEN, pairs

PARTS = 8


async def run(server: RedisServer, questions: int, asked: int, least: float, learning: Learning | None) -> None:
    server.flush()
    chosen = [pair for pair in pairs(UNSEEN) if pair.group < questions]
    answers = RedisAnswers(server.url, 30.0, 30.0, b"benchmark", Clock())
    reporters = Reporters(answers, chosen, embeddings(chosen), least, learning)
    before, shares = Outcome(), []
    for _ in range(PARTS):
        await reporters.ask(asked // PARTS)
        served, wrong = (sum(getattr(one, name) for one in reporters.outcomes.values()) for name in ("served", "wrong"))
        part = served - before.served, wrong - before.wrong
        shares.append(f"{part[1]} of {part[0]}")
        before = Outcome(asked, served, wrong)
    title = "nobody reports" if learning is None else f"target {learning.target_error_rate:.0%}"
    print(f"similarity >= {least}, {title}: wrong of served, {asked // PARTS} asked each: {', '.join(shares)}")
    await answers.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--asked", type=int, default=8000)
    options = parser.parse_args()
    settings = Settings()
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(pathlib.Path(folder))
        try:
            for target in (None, settings.target_error_rate, 0.05):
                learning = None
                if target is not None:
                    learning = Learning(target, settings.learning_step, settings.learning_radius, settings.feedback_s)
                asyncio.run(run(server, options.questions, options.asked, settings.threshold, learning))
        finally:
            server.close()


if __name__ == "__main__":
    main()
