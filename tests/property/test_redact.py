"""However an answer is cut, the client reads the same; and what was never found is as it was."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.detection.pieces import Pieces
from extproc.detection.pseudonyms import Pseudonyms, Restorer, draw_nonce
from extproc.detection.replacement import masked, replaced
from extproc.detection.runs import JsonReader, Run
from extproc.detection.scanner import PatternScanner, Selection
from extproc.detection.stream import Segment, StreamScanner
from extproc.dialects.answer import AnswerEvent, Delta, Done
from extproc.dialects.interface import AnswerIdentity, InferenceRequest, RequestHead, TokenTotals
from extproc.dialects.openai_api import CHAT
from extproc.dialects.registry import pool_dialect
from extproc.policies.redact_answers import AnswerRedactor, Channel
from extproc.policies.redact_exchange import Direction, Redaction, Rules
from extproc.policies.redact_names import AnswerNames, NameSearch
from tests.helpers.databases import kept
from tests.helpers.redacting import Names, at_once
from tests.helpers.scanners import SmallScanner

NONCE = "kdwzpr"
ORIGINALS = {"EMAIL_ADDRESS": "eve@evil.example", "PERSON": 'O"Neill\n\\é😀'}
RULES = Rules("redact", {"CREDIT_CARD": "mask"})

pieces_of_text = st.sampled_from(
    [
        "ann.lee@example.com", "4111 1111 1111 1111", "<EMAIL_ADDRESS_1_kdwzpr>", "person\\_2\\_KDWZPR",
        "PERSON_2_kdwzpr", "<EMAIL_ADDRESS_1_kdwzpq>", "<EMAIL", "<", "_1_", " ", ", ", "\n", "Ann", "4111 11", "@",
        "é", "😀", '"', "\\", "{", "\ufffc", "word",
    ]
)  # fmt: skip
texts = st.lists(pieces_of_text, max_size=8).map("".join)
cuts = st.lists(st.integers(0, 10_000), max_size=12)


@functools.cache
def scanners() -> tuple[StreamScanner, ...]:
    return SmallScanner(), PatternScanner.compile(Selection(), kept())


def pieces(data: Any, places: Sequence[int]) -> list[Any]:
    ends = sorted({place % (len(data) + 1) for place in places})
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


def pseudonyms() -> Pseudonyms:
    issued = Pseudonyms(NONCE)
    for entity, original in ORIGINALS.items():
        issued.placeholder(entity, original)
    return issued


def channel(scanner: StreamScanner, rules: Rules, *, json: bool, restore: bool) -> Channel:
    replace = Redaction("team", None).replacer(rules, Direction.RESPONSE)
    return Channel(scanner.open, rules, replace, pseudonyms() if restore else None, json=json)


def run(channel: Channel, parts: Sequence[str]) -> str:
    return "".join([*(at_once(channel.feed(part)) for part in parts), at_once(channel.flush())])


@settings(deadline=None)
@given(texts, cuts, st.booleans(), st.booleans(), st.sampled_from([0, 1]))
def test_a_text_reads_the_same_however_it_is_cut(
    text: str, places: list[int], restore: bool, blocking: bool, number: int
) -> None:
    scanner = scanners()[number]
    rules = Rules("redact", {"CREDIT_CARD": "block"}) if blocking else RULES

    def read(parts: Sequence[str]) -> str:
        return run(channel(scanner, rules, json=False, restore=restore), parts)

    whole = read([text])
    assert read(pieces(text, places)) == whole
    assert read(list(text)) == whole
    if not restore and not blocking:
        replace = Redaction("team", None).replacer(rules, Direction.RESPONSE)
        assert whole == replaced(text, scanner.scan(text), replace)


values = st.recursive(
    texts | st.integers(0, 10**17) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in strings(part)]
    return [value] if isinstance(value, str) else []


@settings(deadline=None)
@given(values.map(lambda value: {"value": value}), cuts, st.booleans(), st.booleans())
def test_json_stays_json_however_it_is_cut(value: Any, places: list[int], restore: bool, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)

    def read(parts: Sequence[str]) -> str:
        return run(channel(SmallScanner(), RULES, json=True, restore=restore), parts)

    whole = read([text])
    assert read(pieces(text, places)) == whole
    assert read(list(text)) == whole
    replace = Redaction("team", None).replacer(RULES, Direction.RESPONSE)
    if not restore:
        expected = [replaced(one, SmallScanner().scan(one), replace) for one in strings(value)]
        assert sorted(strings(json.loads(whole))) == sorted(expected)
    else:
        json.loads(whole)


@given(
    st.lists(st.sampled_from(['"', "\\", "u", "d83d", "\\ude00", "00e", "x", "{", "1", "\ud83d"]), max_size=12).map(
        "".join
    ),
    cuts,
)
def test_what_is_no_json_passes_as_it_is(text: str, places: list[int]) -> None:
    def read(parts: Sequence[str]) -> list[Run]:
        reader = JsonReader()
        runs = [run for part in parts for run in reader.feed(part)]
        return [*runs, *reader.finish()]

    assert "".join(run.raw for run in read(pieces(text, places))) == text
    assert "".join(run.text for run in read(pieces(text, places))) == "".join(run.text for run in read([text]))


def request(*, stream: bool) -> InferenceRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": stream, "n": 2}
    return CHAT.parse(RequestHead("POST", "/", {}), json.dumps(body).encode())


class Said(dict[str, Any]):
    """What one choice says: its reasoning, its text, and the arguments of its tool calls."""


choices = st.fixed_dictionaries(
    {
        "reasoning": texts,
        "content": texts,
        "calls": st.lists(texts.map(lambda text: json.dumps({"a": text})), max_size=2),
    }
)


def deltas(said: dict[str, Any], places: list[int]) -> list[dict[str, Any]]:
    """The same as a model server streams it, cut anywhere."""
    parts = [{"reasoning_content": part} for part in pieces(said["reasoning"], places)]
    parts += [{"content": part} for part in pieces(said["content"], places)]
    for index, arguments in enumerate(said["calls"]):
        parts.append(
            {"tool_calls": [{"index": index, "id": f"c{index}", "type": "function", "function": {"name": "f"}}]}
        )
        for part in pieces(arguments, places):
            parts.append({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    return parts


def sse(one: dict[str, Any], other: dict[str, Any], places: list[int], *, ascii_only: bool) -> bytes:
    """Two choices, their pieces in turn."""
    queues = [list(deltas(said, places)) for said in (one, other)]
    lines = []
    while any(queues):
        for index, queue in enumerate(queues):
            if queue:
                lines.append({"index": index, "delta": queue.pop(0)})
    lines += [{"index": index, "delta": {}, "finish_reason": "stop"} for index in (0, 1)]
    events = [json.dumps({"id": "i", "model": "up", "choices": [line]}, ensure_ascii=ascii_only) for line in lines]
    return b"".join(b"data: " + event.encode() + b"\n\n" for event in [*events, "[DONE]"])


def body(said: Sequence[dict[str, Any]]) -> bytes:
    answers = []
    for index, one in enumerate(said):
        calls = [
            {"id": f"c{number}", "type": "function", "function": {"name": "f", "arguments": arguments}}
            for number, arguments in enumerate(one["calls"])
        ]
        message = {"role": "assistant", "content": one["content"], "reasoning_content": one["reasoning"]}
        if calls:
            message["tool_calls"] = calls
        answers.append({"index": index, "message": message, "finish_reason": "stop"})
    return json.dumps({"id": "i", "model": "up", "choices": answers}).encode()


def through(data: Sequence[bytes], *, stream: bool) -> bytes:
    """What a client gets of an answer in these bytes."""
    asked = request(stream=stream)
    content_type = "text/event-stream" if stream else "application/json"
    decoder = pool_dialect("openai").decoder(asked, 200, content_type)
    encoder = CHAT.encoder(asked, AnswerIdentity("1", 1, "public"), TokenTotals(1, 1))
    redactor = AnswerRedactor(
        lambda json: channel(SmallScanner(), RULES, json=json, restore=True), lambda _: None, 2, stream=stream
    )
    sent = b""
    for part in data:
        sent += encoder.encode(at_once(redactor.pass_on(decoder.feed(part))))
    return sent + encoder.encode(at_once(redactor.pass_on(decoder.finish())))


def read(sent: bytes, *, stream: bool) -> dict[int, tuple[str, str, list[str]]]:
    """What its user sees: reasoning, text, arguments, of each choice."""
    decoder = pool_dialect("openai").decoder(request(stream=stream), 200, "text/event-stream" if stream else "x")
    events: list[AnswerEvent] = [*decoder.feed(sent), *decoder.finish()]
    assert isinstance(events[-1], Done)
    seen: dict[int, tuple[str, str, dict[int, str]]] = {}
    for event in events:
        if isinstance(event, Delta):
            reasoning, text, calls = seen.get(event.index, ("", "", {}))
            for position, call in enumerate(event.tool_calls or ()):
                index = call.get("index", position)
                calls[index] = calls.get(index, "") + (call.get("function") or {}).get("arguments", "")
            seen[event.index] = (reasoning + event.reasoning, text + event.text, calls)
    return {
        index: (reasoning, text, [calls[i] for i in sorted(calls)]) for index, (reasoning, text, calls) in seen.items()
    }


@settings(deadline=None)
@given(choices, choices, cuts, cuts, st.booleans())
def test_streamed_and_whole_answers_say_the_same(
    one: dict[str, Any], other: dict[str, Any], inside: list[int], outside: list[int], ascii_only: bool
) -> None:
    """Cut within texts and escapes by the model server, and between any two bytes by the network."""
    whole = read(through([body([one, other])], stream=False), stream=False)
    data = sse(one, other, inside, ascii_only=ascii_only)
    assert read(through(pieces(data, outside), stream=True), stream=True) == whole
    assert read(through([data[i : i + 1] for i in range(len(data))], stream=True), stream=True) == whole
    assert "ann.lee@example.com" not in json.dumps(list(whole.values()))


@given(st.lists(texts, max_size=3), st.integers(0, 2**32))
def test_a_nonce_is_in_no_text(given_texts: list[str], seed: int) -> None:
    letters = iter(f"{NONCE}{'KDWZPR'.lower()}bcdfgh")
    nonce = draw_nonce([*given_texts, NONCE.upper()], lambda _: next(letters))
    assert nonce == "bcdfgh"


@given(texts)
def test_masked_texts_keep_their_length_and_show_at_most_four(text: str) -> None:
    hidden = masked(text)
    assert len(hidden) == len(text)
    assert sum(letter.isalnum() for letter in hidden) in (0, 4)


@given(texts, cuts)
def test_nothing_is_held_longer_than_a_placeholder(text: str, places: list[int]) -> None:
    restorer = Restorer(pseudonyms())
    fed = passed = 0
    for part in pieces(text, places):
        fed += len(part)
        passed += sum(len(run.text) for run in restorer.feed([Run(part, part)]))
        held = sum(len(run.text) for run in restorer._held)
        assert held <= 60


sentences = st.sampled_from(
    [
        "Ann", "Paris", "Dr. Ann Lee", "at 3.50", " ", ". ", "?! ", '." ', ".", "...", "\n", "。", "」", "word " * 9,
        "x" * 70, "a@b.c", "4111 1111 1111 1111", "é", "<PERSON>", "<EMAIL_ADDRESS_1_kdwzpr>", "<", "\ufffc", '"',
    ]
)  # fmt: skip
tales = st.lists(sentences, max_size=16).map("".join)


@settings(deadline=None)
@given(tales, cuts, st.integers(0, 6), st.sampled_from([64, 320]), st.sampled_from(["redact", "block"]), st.booleans())
def test_names_read_the_same_however_a_text_is_cut(
    text: str, places: list[int], budget: int, piece_chars: int, person: str, restore: bool
) -> None:
    rules = Rules("redact", {"PERSON": person})

    def read(parts: Sequence[str]) -> str:
        search = NameSearch(Names(), rules, 0.5, piece_chars, budget, 1.0)
        replace = Redaction("team", None).replacer(rules, Direction.RESPONSE)
        names = AnswerNames(search, lambda error: None).open()
        own = pseudonyms() if restore else None
        return run(Channel(SmallScanner().open, rules, replace, own, json=False, names=names), parts)

    whole = read([text])
    assert read(pieces(text, places)) == whole
    assert read(list(text)) == whole


@given(tales, cuts, st.integers(64, 100))
def test_pieces_are_the_text_and_none_is_long_unless_a_find_is(text: str, places: list[int], longest: int) -> None:
    spans = SmallScanner().scan(text)
    whole = Pieces(longest)
    cut = [*whole.add([Segment(text, spans)]), *whole.finish()]
    assert "".join(piece.text for piece in cut) == text
    assert [piece.text[s.start : s.end] for piece in cut for s in piece.spans] == [text[s.start : s.end] for s in spans]
    assert all(len(piece.text) <= longest for piece in cut if not piece.spans)
    stream, part = Pieces(longest), SmallScanner().open()
    fed = [piece for one in pieces(text, places) for piece in stream.add(part.feed(one))]
    assert [*fed, *stream.add(part.close()), *stream.finish()] == cut
