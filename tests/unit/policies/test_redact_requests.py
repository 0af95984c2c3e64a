"""What `redact` does to requests, and what it tells of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from extproc.detection.replacement import hashed
from extproc.policies.redact_settings import Settings
from tests.helpers.redacting import HASH_SECRET, MAIL, Records, Redacting, asked, sent, streamed, whole_chat

CARD = "4111 1111 1111 1111"


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("allow", MAIL),
        ("redact", "<EMAIL_ADDRESS>"),
        ("mask", "***.***@******e.com"),
        ("hash", hashed("EMAIL_ADDRESS", MAIL, "t", HASH_SECRET.encode())),
    ],
)
async def test_a_find_is_replaced_as_configured(tmp_path: Path, action: str, expected: str) -> None:
    inside = Redacting(tmp_path, requests={"actions": {"EMAIL_ADDRESS": action}})
    exchanged = await inside.ask(messages=asked(f"Write to {MAIL}, please."))
    assert sent(exchanged.forwarded) == f"Write to {expected}, please."


async def test_blocked_is_refused_by_kind_and_never_by_text(tmp_path: Path) -> None:
    inside = Redacting(tmp_path, requests={"actions": {"EMAIL_ADDRESS": "block"}})
    exchanged = await inside.ask(messages=asked(f"Write to {MAIL}"))
    assert (exchanged.status, exchanged.error["code"]) == (400, "content_filter")
    assert "EMAIL_ADDRESS" in exchanged.error["message"]
    assert MAIL not in exchanged.body.decode()
    assert exchanged.forwarded == {}
    (usage,) = inside.usage.events
    assert (usage["reason"], usage["redacted"], usage["price_nano"]) == ("pii_blocked", 1, 0)
    assert inside.metric(
        "extproc_pii_found_total", entity="EMAIL_ADDRESS", action="block", direction="request", mode="enforce"
    )


async def test_every_text_of_a_chat_and_every_label_is_read(tmp_path: Path) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "send", "arguments": json.dumps({"to": MAIL})}}
    custom = {"id": "d", "type": "custom", "custom": {"name": "note", "input": MAIL}}
    messages = [
        {"role": "system", "content": f"Serve {MAIL}."},
        {"role": "developer", "content": [{"type": "text", "text": f"Serve {MAIL}."}]},
        {"role": "user", "name": MAIL, "content": [{"type": "text", "text": f"I am {MAIL}."}]},
        {"role": "assistant", "content": None, "reasoning_content": MAIL, "tool_calls": [call, custom]},
        {"role": "tool", "tool_call_id": "c", "content": f"Sent to {MAIL}."},
        {"role": "assistant", "content": MAIL, "refusal": MAIL},
        {"role": "user", "content": f"Thanks, {MAIL}!"},
    ]
    body = {"messages": messages, "user": MAIL, "metadata": {"who": MAIL}, "documents": [{"text": MAIL}]}
    exchanged = await Redacting(tmp_path).ask(**body, prediction={"type": "content", "content": MAIL})
    text = json.dumps(exchanged.forwarded)
    assert MAIL not in text
    assert text.count("<EMAIL_ADDRESS>") == 14
    assert exchanged.forwarded["messages"][2]["name"] == "EMAIL_ADDRESS"
    assert json.loads(exchanged.forwarded["messages"][3]["tool_calls"][0]["function"]["arguments"]) == {
        "to": "<EMAIL_ADDRESS>"
    }


async def test_completions(tmp_path: Path) -> None:
    inside = Redacting(tmp_path)
    path = "/v1/completions"
    answer = [b'{"choices":[{"index":0,"text":"ok","finish_reason":"stop"}]}']
    exchanged = await inside.ask(lambda _: answer, path, prompt=["a", MAIL], suffix=MAIL)
    assert (exchanged.forwarded["prompt"], exchanged.forwarded["suffix"]) == (
        ["a", "<EMAIL_ADDRESS>"],
        "<EMAIL_ADDRESS>",
    )
    refused = await inside.ask(path=path, prompt=[1, 2])
    assert (refused.status, refused.error["code"]) == (400, "unsupported_value")
    allowing = Redacting(tmp_path, requests={"token_ids": "allow"})
    assert (await allowing.ask(lambda _: answer, path, prompt=[1, 2])).forwarded["prompt"] == [1, 2]


async def test_media_pass_or_are_refused(tmp_path: Path) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": MAIL}, image]}]
    exchanged = await Redacting(tmp_path).ask(messages=messages)
    assert exchanged.forwarded["messages"][0]["content"] == [{"type": "text", "text": "<EMAIL_ADDRESS>"}, image]
    refused = await Redacting(tmp_path, requests={"media": "refuse"}).ask(messages=messages)
    assert (refused.status, refused.error["code"]) == (400, "unsupported_value")


async def test_escapes_in_arguments_are_read_and_what_is_not_found_stays_to_the_byte(tmp_path: Path) -> None:
    arguments = '{ "to":"ann.lee\\u0040example.com\\n",  "x" : "\\u00e9\\ud83d\\ude00 \\"q\\"" }'
    call = {"id": "c", "type": "function", "function": {"name": "send", "arguments": arguments}}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}, *asked("and?")]
    exchanged = await Redacting(tmp_path).ask(messages=messages)
    assert exchanged.forwarded["messages"][0]["tool_calls"][0]["function"]["arguments"] == arguments.replace(
        "ann.lee\\u0040example.com", "<EMAIL_ADDRESS>"
    )


async def test_a_large_request_is_read_in_a_thread(tmp_path: Path) -> None:
    exchanged = await Redacting(tmp_path, inline_limit_chars=10).ask(messages=asked(f"Write to {MAIL}"))
    assert sent(exchanged.forwarded) == "Write to <EMAIL_ADDRESS>"


async def test_in_shadow_nothing_changes_but_the_count(tmp_path: Path) -> None:
    inside = Redacting(tmp_path, mode="shadow", requests={"actions": {"CREDIT_CARD": "block"}})
    answer = streamed("Write to ann", ".lee@exam", "ple.com.")
    exchanged = await inside.ask(lambda _: answer, messages=asked(f"I am {MAIL}."), stream=True)
    assert sent(exchanged.forwarded) == f"I am {MAIL}."
    assert exchanged.text == f"Write to {MAIL}."
    assert answer[1].rpartition(b"choices")[2] in exchanged.body, "what comes passes at once, to the byte"
    labels = {"entity": "EMAIL_ADDRESS", "action": "redact", "mode": "shadow"}
    assert inside.metric("extproc_pii_found_total", direction="request", **labels) == 1
    assert inside.metric("extproc_pii_found_total", direction="response", **labels) == 1
    assert inside.usage.events[0]["redacted"] == 0


async def test_by_default_it_is_off(tmp_path: Path) -> None:
    exchanged = await Redacting(tmp_path, mode=Settings().mode).ask(messages=asked(MAIL))
    assert sent(exchanged.forwarded) == MAIL


async def test_what_was_done_is_on_record_in_kinds_and_numbers(tmp_path: Path) -> None:
    records = Records()
    inside = Redacting(tmp_path, audit=records, requests={"actions": {"CREDIT_CARD": "block"}})
    await inside.ask(lambda _: [whole_chat(f"To {MAIL}")], messages=asked(f"{MAIL} {MAIL}"))
    await inside.ask(messages=asked(CARD))
    await inside.ask(messages=asked("nothing"))
    assert [(entry.policy, entry.action, entry.reason, dict(entry.entities)) for entry in records.entries] == [
        ("redact", "redacted", "", {"EMAIL_ADDRESS": 3}),
        ("redact", "blocked", "pii_blocked", {"CREDIT_CARD": 1}),
    ]
    assert MAIL not in str(records.entries)
    shadow = Records()
    await Redacting(tmp_path, audit=shadow, mode="shadow").ask(messages=asked(MAIL))
    assert shadow.entries == []
