"""What redaction costs in µs, best of five: `python -m tests.benchmarks.redact`.

A chunk is one word of a stream: redaction alone, and all that is done with it here from the model server's bytes to the
client's, with and without redaction. Then how many letters a stream holds back, and what a request costs.
"""

from __future__ import annotations

import json
import timeit
from collections.abc import Callable, Sequence

from extproc.detection.pseudonyms import Pseudonyms
from extproc.detection.scanner import PatternScanner, Selection
from extproc.dialects.answer import AnswerEvent, Delta
from extproc.dialects.interface import AnswerIdentity, RequestHead, TokenTotals
from extproc.dialects.openai_api import CHAT
from extproc.dialects.registry import pool_dialect
from extproc.policies.redact_answers import AnswerRedactor, Channel
from extproc.policies.redact_exchange import Direction, Redaction, Rules
from extproc.policies.redact_requests import Reading
from tests.helpers.redacting import at_once

HEAD = RequestHead("POST", "/v1/chat/completions", {})
PLAIN = (
    "The quick brown fox jumps over the lazy dog near the river, and then it goes home to sleep until the next day "
    "begins again, as Ann had said it would when she came back from her walk. "
)
DENSE = (
    "The quick brown fox jumps over the lazy dog near 3 rivers, says Ann. Write to ann.lee@example.com or call "
    "+1 212 555 0199 before 2024-05-17; the card 4111 1111 1111 1111 was charged 12.50 EUR. "
)


def words(prose: str) -> list[str]:
    return [f" {word}" for word in (prose * 20).split()]


RULES = Rules("redact", {})


def report(what: str, call: Callable[[], object], per: int, number: int) -> None:
    best_s = min(timeit.repeat(call, number=number, repeat=5)) / number
    print(f"{what:<64}{best_s / per * 1e6:>10.1f} µs", flush=True)


def redactor(scanner: PatternScanner, pseudonyms: Pseudonyms | None) -> AnswerRedactor:
    replace = Redaction("team", None).replacer(RULES, Direction.RESPONSE)

    def channel(json: bool) -> Channel:
        return Channel(scanner.open, RULES, replace, pseudonyms, json=json)

    return AnswerRedactor(channel, lambda _: None, 1, stream=True)


def deltas(prose: str) -> list[AnswerEvent]:
    return [*(Delta(0, word) for word in words(prose)), Delta(0, finish_reason="stop")]


def calls(prose: str) -> list[AnswerEvent]:
    text = json.dumps({"text": prose * 20})
    pieces = [text[start : start + 6] for start in range(0, len(text), 6)]
    fragments: list[AnswerEvent] = [
        Delta(0, tool_calls=[{"index": 0, "function": {"arguments": piece}}]) for piece in pieces
    ]
    return [*fragments, Delta(0, finish_reason="tool_calls")]


def issued() -> Pseudonyms:
    pseudonyms = Pseudonyms("kdwzpr")
    for entity in ("EMAIL_ADDRESS", "PERSON", "PHONE_NUMBER", "CREDIT_CARD"):
        pseudonyms.placeholder(entity, "original")
    return pseudonyms


def run(scanner: PatternScanner, events: Sequence[AnswerEvent], pseudonyms: Pseudonyms | None = None) -> None:
    pass_on = redactor(scanner, pseudonyms).pass_on
    for event in events:
        at_once(pass_on([event]))


def through(scanner: PatternScanner | None, chunks: Sequence[bytes]) -> int:
    """From the model server's bytes to the client's."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
    request = CHAT.parse(HEAD, json.dumps(body).encode())
    decoder = pool_dialect("openai").decoder(request, 200, "text/event-stream")
    encoder = CHAT.encoder(request, AnswerIdentity("0b7f", 1700000000, "public"), TokenTotals())
    own = None if scanner is None else redactor(scanner, None)
    size = 0
    for chunk in chunks:
        events: Sequence[AnswerEvent] = decoder.feed(chunk)
        size += len(encoder.encode(events if own is None else at_once(own.pass_on(events))))
    return size


def chunk(text: str, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": finish_reason}
    answer = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "up", "choices": [choice]}
    return b"data: " + json.dumps(answer, separators=(",", ":")).encode() + b"\n\n"


def streams(scanner: PatternScanner, kind: str, prose: str) -> None:
    texts, fragments, pseudonyms = deltas(prose), calls(prose), issued()
    number = 5
    report(f"{kind}: redact, per chunk", lambda: run(scanner, texts), len(texts), number)
    report(f"{kind}: redact and put back, per chunk", lambda: run(scanner, texts, pseudonyms), len(texts), number)
    report(f"{kind}: redact, per fragment of a tool call", lambda: run(scanner, fragments), len(fragments), number)
    chunks = [*map(chunk, words(prose)), chunk("", "stop"), b"data: [DONE]\n\n"]
    report(f"{kind}: decode and encode, per chunk", lambda: through(None, chunks), len(chunks), number)
    report(f"{kind}: decode, redact and encode, per chunk", lambda: through(scanner, chunks), len(chunks), number)
    held_back(scanner, kind, prose)


def held_back(scanner: PatternScanner, kind: str, prose: str) -> None:
    stream = scanner.open()
    held, fed, passed = [], 0, 0
    for word in words(prose):
        fed += len(word)
        passed += sum(len(segment.text) for segment in stream.feed(word))
        held.append(fed - passed)
    print(f"{f'{kind}: held back after the first chunk':<64}{held[0]:>10} letters")
    held.sort()
    for percent in (50, 90, 99):
        print(
            f"{f'{kind}: held back, {percent} % of the time at most':<64}{held[len(held) * percent // 100]:>10} letters"
        )


def requests(scanner: PatternScanner, kind: str, prose: str) -> None:
    messages = [{"role": "user", "content": (prose * 3)[: 2048 // 5]} for _ in range(5)]
    body = json.dumps({"model": "m", "messages": messages}).encode()
    segments = CHAT.parse(HEAD, body).texts()
    for action in ("redact", "pseudonymise"):
        rules = Rules(action, {})

        def read(rules: Rules = rules) -> None:
            readings = [Reading(segment) for segment in segments]
            for reading in readings:
                reading.add(rules.acted(scanner.scan(reading.text)))
            replace = Redaction("team", None).replacer(rules, Direction.REQUEST, [one.text for one in readings])
            for reading in readings:
                if reading.spans:
                    reading.replaced(replace)

        report(f"{kind}: a request of 2 KB in 5 messages, {action}", read, 1, 100)


def main() -> None:
    scanner = PatternScanner.compile(Selection())
    for kind, prose in (("plain prose", PLAIN), ("a find every 8 words", DENSE)):
        streams(scanner, kind, prose)
        requests(scanner, kind, prose)


if __name__ == "__main__":
    main()
