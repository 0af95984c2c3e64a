"""What `redact` does to requests and answers, seen from both ends of a worker's inside."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pydantic
import pytest

from extproc.detection.replacement import hashed
from extproc.errors import DependencyError
from extproc.exchange.messages import HeadersReply
from extproc.policies.redact import selection
from extproc.policies.redact_settings import Settings
from tests.helpers.redacting import (
    DONE,
    HASH_SECRET,
    USAGE,
    Names,
    Records,
    Redacting,
    asked,
    event,
    streamed,
    tool_call,
    whole_chat,
)

MAIL = "ann.lee@example.com"
CARD = "4111 1111 1111 1111"
PLACEHOLDER = r"<EMAIL_ADDRESS_\d+_[a-z]{6}>"


def sent(forwarded: dict[str, Any]) -> str:
    """What the model server reads in the last message."""
    content: str = forwarded["messages"][-1]["content"]
    return content


class TestRequests:
    @pytest.mark.parametrize(
        ("action", "expected"),
        [
            ("allow", MAIL),
            ("redact", "<EMAIL_ADDRESS>"),
            ("mask", "***.***@******e.com"),
            ("hash", hashed("EMAIL_ADDRESS", MAIL, "t", HASH_SECRET.encode())),
        ],
    )
    async def test_a_find_is_replaced_as_configured(self, tmp_path: Path, action: str, expected: str) -> None:
        inside = Redacting(tmp_path, requests={"actions": {"EMAIL_ADDRESS": action}})
        exchanged = await inside.ask(messages=asked(f"Write to {MAIL}, please."))
        assert sent(exchanged.forwarded) == f"Write to {expected}, please."

    async def test_blocked_is_refused_by_kind_and_never_by_text(self, tmp_path: Path) -> None:
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

    async def test_every_text_of_a_chat_and_every_label_is_read(self, tmp_path: Path) -> None:
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

    async def test_completions(self, tmp_path: Path) -> None:
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

    async def test_media_pass_or_are_refused(self, tmp_path: Path) -> None:
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
        messages = [{"role": "user", "content": [{"type": "text", "text": MAIL}, image]}]
        exchanged = await Redacting(tmp_path).ask(messages=messages)
        assert exchanged.forwarded["messages"][0]["content"] == [{"type": "text", "text": "<EMAIL_ADDRESS>"}, image]
        refused = await Redacting(tmp_path, requests={"media": "refuse"}).ask(messages=messages)
        assert (refused.status, refused.error["code"]) == (400, "unsupported_value")

    async def test_escapes_in_arguments_are_read_and_what_is_not_found_stays_to_the_byte(self, tmp_path: Path) -> None:
        arguments = '{ "to":"ann.lee\\u0040example.com\\n",  "x" : "\\u00e9\\ud83d\\ude00 \\"q\\"" }'
        call = {"id": "c", "type": "function", "function": {"name": "send", "arguments": arguments}}
        messages = [{"role": "assistant", "content": None, "tool_calls": [call]}, *asked("and?")]
        exchanged = await Redacting(tmp_path).ask(messages=messages)
        assert exchanged.forwarded["messages"][0]["tool_calls"][0]["function"]["arguments"] == arguments.replace(
            "ann.lee\\u0040example.com", "<EMAIL_ADDRESS>"
        )

    async def test_a_large_request_is_read_in_a_thread(self, tmp_path: Path) -> None:
        exchanged = await Redacting(tmp_path, inline_limit_chars=10).ask(messages=asked(f"Write to {MAIL}"))
        assert sent(exchanged.forwarded) == "Write to <EMAIL_ADDRESS>"

    async def test_in_shadow_nothing_changes_but_the_count(self, tmp_path: Path) -> None:
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

    async def test_by_default_it_is_off(self, tmp_path: Path) -> None:
        exchanged = await Redacting(tmp_path, mode=Settings().mode).ask(messages=asked(MAIL))
        assert sent(exchanged.forwarded) == MAIL


class TestNames:
    async def test_names_are_found_where_patterns_are_not(self, tmp_path: Path) -> None:
        inside = Redacting(tmp_path, encoder=Names(), names=True, requests={"action": "pseudonymise"})
        exchanged = await inside.ask(messages=asked(f"Ann of Paris, {MAIL}, asks Ann"))
        assert re.fullmatch(rf"(<PERSON_1_[a-z]{{6}}>) of Paris, {PLACEHOLDER}, asks \1", sent(exchanged.forwarded)), (
            "Paris is not certain enough"
        )

    async def test_they_are_found_in_what_json_says(self, tmp_path: Path) -> None:
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":"\\u0041nn"}'}}
        messages = [{"role": "assistant", "content": None, "tool_calls": [call]}, *asked("and?")]
        exchanged = await Redacting(tmp_path, encoder=Names(), names=True).ask(messages=messages)
        (called,) = exchanged.forwarded["messages"][0]["tool_calls"]
        assert called["function"]["arguments"] == '{"a":"<PERSON>"}'

    async def test_without_the_encoder_it_is_closed_or_patterns_go_on_alone(self, tmp_path: Path) -> None:
        lost = Names(DependencyError("encoder", "overloaded"))
        closed = await Redacting(tmp_path, encoder=lost, names=True).ask(messages=asked(f"Ann, {MAIL}"))
        assert (closed.status, closed.forwarded) == (503, {})
        inside = Redacting(tmp_path, encoder=lost, names=True, on_failure="open")
        opened = await inside.ask(messages=asked(f"Ann, {MAIL}"))
        assert sent(opened.forwarded) == "Ann, <EMAIL_ADDRESS>"
        assert ("x-extproc-degraded", "redact") in {
            header for reply in opened.replies if isinstance(reply, HeadersReply) for header in reply.set_headers
        }
        assert inside.metric("extproc_policy_failures_total", policy="redact", dependency="encoder") == 1

    async def test_what_the_budget_left_unread_is_counted(self, tmp_path: Path) -> None:
        inside = Redacting(tmp_path, encoder=Names(), names=True)
        await inside.ask(messages=asked("Ann " * 50))
        assert inside.metric("extproc_pii_partly_read_total", mode="enforce") == 0
        await inside.ask(messages=asked("Ann " * 500))
        assert inside.metric("extproc_pii_partly_read_total", mode="enforce") == 1


class TestAudit:
    async def test_what_was_done_is_on_record_in_kinds_and_numbers(self, tmp_path: Path) -> None:
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


class TestSettings:
    def test_what_is_looked_for(self) -> None:
        def entities(**section: Any) -> frozenset[str]:
            return selection(Settings.model_validate_json(json.dumps(section))).entities

        everything = entities()
        assert {"EMAIL_ADDRESS", "US_SSN", "DE_TAX_ID", "API_KEY"} <= everything
        assert "URL" not in everything
        assert entities(requests={"actions": {"URL": "redact"}}) == everything | {"URL"}
        assert entities(regions=["us"]) & {"US_SSN", "DE_TAX_ID", "API_KEY"} == {"US_SSN", "API_KEY"}
        only = {"action": "allow", "actions": {"CREDIT_CARD": "mask", "PERSON": "redact"}}
        assert entities(requests=only, responses={"action": "allow"}) == {"CREDIT_CARD"}

    @pytest.mark.parametrize(
        "section", [{"regions": ["xx"]}, {"regions": ["general"]}, {"requests": {"actions": {"EMAIL": "redact"}}}]
    )
    def test_what_is_not_known_is_refused(self, section: dict[str, Any]) -> None:
        with pytest.raises(pydantic.ValidationError, match="no such"):
            Settings.model_validate_json(json.dumps(section))

    def test_a_hash_needs_a_secret_that_blake2_can_take(self) -> None:
        with pytest.raises(pydantic.ValidationError, match="hash_secret"):
            Settings.model_validate_json('{"requests": {"action": "hash"}}')
        for length in (15, 65):
            with pytest.raises(pydantic.ValidationError, match="16 to 64"):
                Settings.model_validate_json(json.dumps({"hash_secret": "x" * length}))

    def test_there_are_no_pseudonyms_in_answers(self) -> None:
        with pytest.raises(pydantic.ValidationError):
            Settings.model_validate_json('{"responses": {"action": "pseudonymise"}}')


def finish(reason: str = "stop", index: int = 0) -> bytes:
    return event(index, reason)


class TestAnswers:
    async def test_whole(self, tmp_path: Path) -> None:
        call = {
            "id": "c",
            "type": "function",
            "function": {"name": "send", "arguments": '{"to":"ann.lee@example.com"}'},
        }
        answer = whole_chat(f"It is {MAIL}.", reasoning_content=f"So {MAIL}", tool_calls=[call], refusal=None, odd=MAIL)
        exchanged = await Redacting(tmp_path).ask(lambda _: [answer], messages=asked("Who?"))
        assert exchanged.joined()[0] == {
            "text": "It is <EMAIL_ADDRESS>.",
            "reasoning": "So <EMAIL_ADDRESS>",
            "calls": [{"function": {"name": "send", "arguments": '{"to":"<EMAIL_ADDRESS>"}'}}],
            "finish": "stop",
        }
        assert MAIL not in exchanged.body.decode()

    @pytest.mark.parametrize("stream", [False, True])
    async def test_refusals(self, tmp_path: Path, *, stream: bool) -> None:
        answer = (
            [event(refusal=f"Not to {MAIL}"), finish(), DONE]
            if stream
            else [whole_chat(None, refusal=f"Not to {MAIL}")]
        )
        exchanged = await Redacting(tmp_path).ask(lambda _: answer, messages=asked("?"), stream=stream)
        pieces = (
            [event["choices"][0]["delta"] for event in exchanged.events]
            if stream
            else [json.loads(exchanged.body)["choices"][0]["message"]]
        )
        assert "".join(piece.get("refusal") or "" for piece in pieces) == "Not to <EMAIL_ADDRESS>"
        assert not any(piece.get("content") for piece in pieces)

    async def test_choices_are_texts_of_their_own(self, tmp_path: Path) -> None:
        answer = [
            event(0, content="ann.lee@exam"),
            event(1, content="bob@exam"),
            event(0, content="ple.com!"),
            event(1, content="ple.org!"),
            finish(index=1),
            finish(index=0),
            USAGE,
            DONE,
        ]
        exchanged = await Redacting(tmp_path).ask(lambda _: answer, messages=asked("Who?"), stream=True, n=2)
        joined = exchanged.joined()
        assert [joined[index]["text"] for index in (0, 1)] == ["<EMAIL_ADDRESS>!", "<EMAIL_ADDRESS>!"]
        assert [joined[index]["finish"] for index in (0, 1)] == ["stop", "stop"]

    async def test_what_is_held_comes_before_the_finish_reason_and_the_usage(self, tmp_path: Path) -> None:
        answer = [event(content="It is ann.lee@example.com"), finish(), USAGE, DONE]
        options = {"stream_options": {"include_usage": True}}
        exchanged = await Redacting(tmp_path).ask(lambda _: answer, messages=asked("Who?"), stream=True, **options)
        assert exchanged.text == "It is <EMAIL_ADDRESS>"
        assert [bool(e["choices"]) for e in exchanged.events][-1] is False
        assert exchanged.events[-2]["choices"][0]["finish_reason"] == "stop"
        assert exchanged.body.endswith(DONE)

    async def test_an_answer_without_a_finish_reason_loses_nothing(self, tmp_path: Path) -> None:
        answer = [event(content="It is ann.lee@example.com"), DONE]
        exchanged = await Redacting(tmp_path).ask(lambda _: answer, messages=asked("Who?"), stream=True)
        assert exchanged.text == "It is <EMAIL_ADDRESS>"

    async def test_a_failure_lets_go_what_is_held_and_is_read_itself(self, tmp_path: Path) -> None:
        error = json.dumps({"error": {"message": f"bad input: {MAIL}", "code": 500}}).encode()
        answer = [event(content="It is fine. ann"), b"data: " + error + b"\n\n"]
        exchanged = await Redacting(tmp_path).ask(lambda _: answer, messages=asked("Who?"), stream=True)
        assert "".join(e["choices"][0]["delta"].get("content", "") for e in exchanged.events[:-1]) == "It is fine. ann"
        assert exchanged.events[-1]["error"]["message"] == "bad input: <EMAIL_ADDRESS>"
        assert MAIL.encode() not in exchanged.body
        refused = await Redacting(tmp_path).ask(lambda _: [error], messages=asked("Who?"), status=400)
        assert MAIL.encode() not in refused.body

    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_block_ends_the_answer_there(self, tmp_path: Path, *, stream: bool) -> None:
        inside = Redacting(tmp_path, responses={"actions": {"EMAIL_ADDRESS": "block"}})
        text = f"It is {MAIL}. Anything else?"
        answer = [*streamed(*text), USAGE] if stream else [whole_chat(text)]
        exchanged = await inside.ask(lambda _: answer, messages=asked("Who?"), stream=stream)
        assert (exchanged.text, exchanged.joined()[0]["finish"]) == ("It is ", "content_filter")
        assert exchanged.body.endswith(DONE) is stream
        (usage,) = inside.usage.events
        assert (usage["termination"], usage["reason"]) == ("COMPLETED", "pii_blocked")
        assert usage["completion_tokens"] > 0

    async def test_one_blocked_choice_leaves_the_other_its_end(self, tmp_path: Path) -> None:
        answer = [
            event(0, content=f"{MAIL} x"),
            event(1, content="all "),
            event(0, content=" more"),
            event(1, content="good"),
            finish(index=0),
            finish(index=1),
            DONE,
        ]
        inside = Redacting(tmp_path, responses={"actions": {"EMAIL_ADDRESS": "block"}})
        exchanged = await inside.ask(lambda _: answer, messages=asked("Who?"), stream=True, n=2)
        joined = exchanged.joined()
        assert (joined[0]["text"], joined[0]["finish"]) == ("", "content_filter")
        assert (joined[1]["text"], joined[1]["finish"]) == ("all good", "stop")

    async def test_what_the_limit_cuts_is_let_go_before_it(self, tmp_path: Path) -> None:
        inside = Redacting(tmp_path, limit={"keys": {"inside": {"tokens_per_minute": 60}}})
        words = [f"word{number} " for number in range(90)]
        exchanged = await inside.ask(lambda _: streamed(*words), messages=asked("Hi"), stream=True)
        received = exchanged.text
        assert "".join(words).startswith(received)
        assert exchanged.joined()[0]["finish"] == "length"
        assert inside.usage.events[0]["reason"] == "limit_reached"
        assert re.search(r"word\d+ $", received)

    async def test_logprobs_would_tell_what_the_text_does_not(self, tmp_path: Path) -> None:
        logprobs = {"content": [{"token": "ann", "logprob": -1.0, "top_logprobs": []}]}
        inside = Redacting(tmp_path)
        for text, kept in (("fine", logprobs), (MAIL, None)):
            body = json.loads(whole_chat(text))
            body["choices"][0]["logprobs"] = logprobs
            answer = json.dumps(body).encode()
            exchanged = await inside.ask(lambda _, answer=answer: [answer], messages=asked("?"), logprobs=True)
            assert json.loads(exchanged.body)["choices"][0]["logprobs"] == kept
        answer = [event(content="fine ", logprobs=logprobs), finish(), DONE]
        exchanged = await inside.ask(lambda _: answer, messages=asked("?"), logprobs=True, stream=True)
        assert b'logprob"' not in exchanged.body
        assert exchanged.text == "fine "

    async def test_tool_calls_in_fragments(self, tmp_path: Path) -> None:
        arguments = ['{"to":"ann.lee\\u00', "40exam", 'ple.com","n":1', "}"]
        head = tool_call("", id="c1", type="function")
        head["function"]["name"] = "send"
        other = tool_call('{"q":"x', 1, id="c2", type="function")
        answer = [
            event(role="assistant", content="Sending to ann"),
            event(tool_calls=[head]),
            *(event(tool_calls=[tool_call(part)]) for part in arguments),
            event(tool_calls=[other]),
            event(tool_calls=[tool_call('y"}', 1)]),
            finish("tool_calls"),
            DONE,
        ]
        exchanged = await Redacting(tmp_path).ask(lambda _: answer, messages=asked("?"), stream=True)
        assert exchanged.arguments == ['{"to":"<EMAIL_ADDRESS>","n":1}', '{"q":"xy"}']
        assert exchanged.text == "Sending to ann"
        first = next(e for e in exchanged.events if e["choices"][0]["delta"].get("tool_calls"))
        call = first["choices"][0]["delta"]["tool_calls"][0]
        assert (call["id"], call["type"], call["function"]["name"]) == ("c1", "function", "send")
        assert first["choices"][0]["delta"].get("content", "").endswith("ann"), "text goes before the calls after it"

    async def test_what_is_not_read_does_not_pass(self, tmp_path: Path) -> None:
        answer = [event(content="a", function_call={"arguments": MAIL}), event(annotations=[MAIL]), finish(), DONE]
        exchanged = await Redacting(tmp_path).ask(lambda _: answer, messages=asked("?"), stream=True)
        assert MAIL.encode() not in exchanged.body

    async def test_answers_that_are_allowed_pass_to_the_byte(self, tmp_path: Path) -> None:
        inside = Redacting(tmp_path, responses={"action": "allow"})
        answer = [event(content=MAIL, odd="x"), finish(), DONE]
        exchanged = await inside.ask(lambda _: answer, messages=asked(MAIL), stream=True)
        assert b'"odd": "x"' in exchanged.body
        assert exchanged.text == MAIL


class TestPseudonyms:
    def inside(self, directory: Path) -> Redacting:
        return Redacting(directory, requests={"action": "pseudonymise"})

    async def test_the_model_never_sees_what_the_client_gets_back(self, tmp_path: Path) -> None:
        def echo(forwarded: dict[str, Any]) -> list[bytes]:
            return [whole_chat(f"Dear {sent(forwarded)}")]

        exchanged = await self.inside(tmp_path).ask(echo, messages=asked(f"{MAIL} {MAIL} and bob@example.org"))
        assert re.fullmatch(rf"({PLACEHOLDER}) \1 and (?!\1){PLACEHOLDER}", sent(exchanged.forwarded))
        assert exchanged.text == f"Dear {MAIL} {MAIL} and bob@example.org"

    async def test_every_exchange_has_placeholders_of_its_own(self, tmp_path: Path) -> None:
        inside = self.inside(tmp_path)
        first = sent((await inside.ask(messages=asked(MAIL))).forwarded)
        second = await inside.ask(lambda _: [whole_chat(first)], messages=asked("bob@example.org"))
        assert second.text == first
        assert sent(second.forwarded) != first

    async def test_what_looks_like_a_placeholder_but_was_not_issued_stays(self, tmp_path: Path) -> None:
        forged = "<EMAIL_ADDRESS_1_bcdfgh> <EMAIL_ADDRESS_1>"

        def echo(forwarded: dict[str, Any]) -> list[bytes]:
            issued = re.search(PLACEHOLDER, sent(forwarded).removeprefix(forged))
            assert issued is not None
            made_up = issued[0].replace("_1_", "_7_")
            return [whole_chat(f"{sent(forwarded)} {made_up}")]

        exchanged = await self.inside(tmp_path).ask(echo, messages=asked(f"{forged} {MAIL}"))
        assert re.fullmatch(rf"{forged} {MAIL} <EMAIL_ADDRESS_7_[a-z]{{6}}>", exchanged.text)

    async def test_originals_come_back_in_reasoning_and_in_tool_calls_as_json(self, tmp_path: Path) -> None:
        def echo(forwarded: dict[str, Any]) -> list[bytes]:
            placeholder = sent(forwarded)
            arguments = json.dumps({"to": placeholder}).replace("<", "\\u003c")
            pieces = [tool_call(letter) for letter in arguments]
            thoughts = [event(reasoning_content=letter) for letter in f"So {placeholder}."]
            return [*thoughts, *(event(tool_calls=[piece]) for piece in pieces), finish("tool_calls"), DONE]

        exchanged = await self.inside(tmp_path).ask(echo, messages=asked(MAIL), stream=True)
        assert exchanged.joined()[0]["reasoning"] == f"So {MAIL}."
        assert json.loads(exchanged.arguments[0]) == {"to": MAIL}

    async def test_originals_are_put_back_though_answers_are_not_read(self, tmp_path: Path) -> None:
        inside = Redacting(tmp_path, requests={"action": "pseudonymise"}, responses={"action": "allow"})

        def echo(forwarded: dict[str, Any]) -> list[bytes]:
            return streamed(*f"{sent(forwarded)} or carl@example.org")

        exchanged = await inside.ask(echo, messages=asked(MAIL), stream=True)
        assert exchanged.text == f"{MAIL} or carl@example.org"

    async def test_a_complaint_is_turned_back_too(self, tmp_path: Path) -> None:
        def complain(forwarded: dict[str, Any]) -> list[bytes]:
            return [json.dumps({"error": {"message": f"can't read {sent(forwarded)}"}}).encode()]

        exchanged = await self.inside(tmp_path).ask(complain, messages=asked(MAIL), status=400)
        assert exchanged.error["message"] == f"can't read {MAIL}"
