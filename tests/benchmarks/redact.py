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

HEAD = RequestHead("POST", "/v1/chat/completions", {})
PROSE = (
    "The quick brown fox jumps over the lazy dog near 3 rivers, says Ann. Write to ann.lee@example.com or call "
    "+1 212 555 0199 before 2024-05-17; the card 4111 1111 1111 1111 was charged 12.50 EUR. "
)
WORDS = [f" {word}" for word in (PROSE * 20).split()]
RULES = Rules("redact", {})


def report(what: str, call: Callable[[], object], per: int, number: int) -> None:
    best_s = min(timeit.repeat(call, number=number, repeat=5)) / number
    print(f"{what:<64}{best_s / per * 1e6:>10.1f} µs", flush=True)


def redactor(scanner: PatternScanner, pseudonyms: Pseudonyms | None) -> AnswerRedactor:
    replace = Redaction("team", None).replacer(RULES, Direction.RESPONSE)

    def channel(json: bool) -> Channel:
        return Channel(scanner.open, RULES, replace, pseudonyms, json=json)

    return AnswerRedactor(channel, lambda _: None, 1, stream=True)


def deltas() -> list[AnswerEvent]:
    return [*(Delta(0, word) for word in WORDS), Delta(0, finish_reason="stop")]


def calls() -> list[AnswerEvent]:
    text = json.dumps({"text": PROSE * 20})
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
        pass_on([event])


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
        size += len(encoder.encode(events if own is None else own.pass_on(events)))
    return size


def chunk(text: str, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": finish_reason}
    answer = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "up", "choices": [choice]}
    return b"data: " + json.dumps(answer, separators=(",", ":")).encode() + b"\n\n"


def streams(scanner: PatternScanner) -> None:
    texts, fragments, pseudonyms = deltas(), calls(), issued()
    report("redaction, per chunk of text", lambda: run(scanner, texts), len(texts), 20)
    report(
        "redaction and originals put back, per chunk of text", lambda: run(scanner, texts, pseudonyms), len(texts), 20
    )
    report("redaction, per fragment of a tool call", lambda: run(scanner, fragments), len(fragments), 20)
    report(
        "redaction and originals put back, per fragment",
        lambda: run(scanner, fragments, pseudonyms),
        len(fragments),
        20,
    )
    chunks = [*map(chunk, WORDS), chunk("", "stop"), b"data: [DONE]\n\n"]
    report("decode and encode, per chunk", lambda: through(None, chunks), len(chunks), 20)
    report("decode, redact and encode, per chunk", lambda: through(scanner, chunks), len(chunks), 20)


def held_back(scanner: PatternScanner) -> None:
    pass_on = redactor(scanner, None).pass_on
    held, fed, passed = [], 0, 0
    for number, word in enumerate(WORDS):
        fed += len(word)
        passed += sum(len(event.text) for event in pass_on([Delta(0, word)]) if isinstance(event, Delta))
        if number == 0:
            print(f"{'held after the first chunk, letters':<64}{fed - passed:>10}")
        held.append(max(0, fed - passed))
    held.sort()
    print(f"{'held back while it streams, letters: median':<64}{held[len(held) // 2]:>10}")
    print(f"{'held back while it streams, letters: 99 %':<64}{held[len(held) * 99 // 100]:>10}")


def requests(scanner: PatternScanner) -> None:
    size = 2048 // 5
    text = (PROSE * 3)[:size]
    messages = [{"role": "user", "content": text} for _ in range(5)]
    body = json.dumps({"model": "m", "messages": messages}).encode()
    for action in ("redact", "pseudonymise"):
        rules = Rules(action, {})

        def read(rules: Rules = rules) -> None:
            readings = [Reading(segment) for segment in CHAT.parse(HEAD, body).texts()]
            for reading in readings:
                reading.add(rules.acted(scanner.scan(reading.text)))
            replace = Redaction("team", None).replacer(rules, Direction.REQUEST, [one.text for one in readings])
            for reading in readings:
                if reading.spans:
                    reading.replaced(replace)

        report(f"request of {len(body) / 1024:.0f} KB in 5 messages, with finds: parse, {action}", read, 1, 500)
    report("the same request: parse alone", lambda: CHAT.parse(HEAD, body).texts(), 1, 500)


def main() -> None:
    scanner = PatternScanner.compile(Selection())
    streams(scanner)
    held_back(scanner)
    requests(scanner)


if __name__ == "__main__":
    main()
