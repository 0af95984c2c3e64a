"""Names in answers, read piece by piece: how good, what a stream waits for, what it costs.

    python -m tests.benchmarks.answer_names [--quality]

`--quality` compares judging by pieces (answers) with judging by windows (requests) on the sample documents.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from extproc.clock import Clock
from extproc.config.encoder import Encoder as EncoderSettings
from extproc.detection.pieces import Pieces
from extproc.detection.spans import Span
from extproc.detection.stream import Segment
from extproc.inference.interface import Encoder
from extproc.inference.opening import open_encoder
from extproc.inference.training.evaluation import entity_figures
from extproc.inference.training.grammar import Entity
from extproc.policies.redact_exchange import Rules
from extproc.policies.redact_names import AnswerNames, NameSearch
from extproc.policies.redact_settings import AnswerNames as Settings
from extproc.policies.scan import Scan
from extproc.telemetry.metrics import Metrics
from tests.benchmarks.heads_quality import _LABEL_OF, SAMPLES

PROSE = (
    "The bill came to forty pounds. Mr. Harold Finch paid it at the desk and asked the clerk, a young woman from "
    "Leeds, for a taxi to the station; she said that it would take ten minutes. He waited outside. It had rained since "
    "the morning, and the road to Manchester was closed again, which the radio had announced twice before anybody at "
    'the hotel believed it. "You should have taken the train," his sister told him on the phone. '
)
RULES = Rules("redact", {})


def search(encoder: Encoder) -> NameSearch:
    own = Settings()
    return NameSearch(encoder, RULES, 0.4, own.piece_chars, 10**6, 60.0)


async def by_pieces(encoder: Encoder, text: str) -> Sequence[Span]:
    names = AnswerNames(search(encoder), lambda error: None).open()
    spans: list[Span] = []
    at = 0
    for piece in await names.finish([Segment(text, ())]):
        spans += (Span(at + s.start, at + s.end, s.entity, s.confidence, s.evidence) for s in piece.spans)
        at += len(piece.text)
    return spans


async def by_windows(encoder: Encoder, text: str) -> Sequence[Span]:
    (scanned,) = await Scan(encoder, 10**6, 60.0, Clock()).results([text])
    return [span for span in scanned.spans() if span.confidence >= 0.4]


async def quality(encoder: Encoder) -> None:
    documents = json.loads((SAMPLES / "pii_documents.json").read_text())
    expected = [
        [
            Entity(span["start_position"], span["end_position"], _LABEL_OF[span["entity_type"]])
            for span in document["spans"]
            if span["entity_type"] in _LABEL_OF
        ]
        for document in documents
    ]
    for name, find in (("windows", by_windows), ("pieces", by_pieces)):
        found = []
        for document in documents:
            spans = await find(encoder, document["full_text"])
            found.append([Entity(span.start, span.end, span.entity) for span in spans])
        print(name, json.dumps(entity_figures(expected, found), indent=1), flush=True)


def held() -> None:
    """In a stream of words: how many wait behind the one that was said last."""
    words = [f" {word}" for word in (PROSE * 5).split()]
    pieces = Pieces(Settings().piece_chars)
    waiting, first, lengths = 0, 0, []
    waits = []
    for number, word in enumerate(words):
        done = pieces.add([Segment(word, ())])
        waiting = 0 if done else waiting + 1
        waits.append(waiting)
        lengths += [len(piece.text) for piece in done]
        first = first or (number + 1 if done else 0)
    waits.sort()
    print(f"first words after {first} words; held back half of the time {statistics.median(waits)} words, 99 % of the")
    print(f"time {waits[len(waits) * 99 // 100]} at most; a piece has {statistics.median(lengths)} letters, p50")


async def cost(encoder: Encoder) -> None:
    await by_pieces(encoder, PROSE)
    for name, text in (("one piece of 95 letters", PROSE[31:126]), ("an answer of 2 KB", (PROSE * 5)[:2048])):
        took_ms = []
        for _ in range(15):
            began_s = time.perf_counter()
            await by_pieces(encoder, text)
            took_ms.append((time.perf_counter() - began_s) * 1e3)
        print(f"{name}: {statistics.median(took_ms):.0f} ms, p50", flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quality", action="store_true")
    options = parser.parse_args()
    encoder = open_encoder(EncoderSettings(), Metrics(CollectorRegistry()).encoder, Clock())
    assert encoder is not None
    await encoder.ready()
    held()
    await cost(encoder)
    if options.quality:
        await quality(encoder)
    await encoder.close()


if __name__ == "__main__":
    asyncio.run(main())
