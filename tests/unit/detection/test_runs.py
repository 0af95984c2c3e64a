"""JSON and placeholders read and written side by side, and what takes the place of a find."""

from __future__ import annotations

import json

import pytest

from extproc.detection.pseudonyms import Pseudonyms, Restorer
from extproc.detection.replacement import hashed, masked
from extproc.detection.runs import RESTORED, JsonReader, Run, RunQueue, write
from extproc.detection.spans import Evidence, Span

EVIDENCE = Evidence("pattern", "test")


def span(start: int, end: int, entity: str = "X") -> Span:
    return Span(start, end, entity, 1.0, EVIDENCE)


def rewritten(text: str, found: str, instead: str) -> str:
    reader = JsonReader()
    runs = [*reader.feed(text), *reader.finish()]
    read = "".join(run.text for run in runs)
    start = read.index(found)
    return write(RunQueue(runs), read, [span(start, start + len(found))], lambda entity, found: instead)


class TestJson:
    @pytest.mark.parametrize(
        ("text", "read"),
        [
            (r'{"a":"b\n\"\\\/\u00e9"}', '{"a":"b\n"\\/é"}'),
            (r'"\ud83d\ude00"', '"😀"'),
            (r'"\ud83dx"', '"\ufffdx"'),
            (r'"\ud83d\u0041"', '"\ufffdA"'),
            (r'"\u12"', r'"\u12"'),
            ('"\\u12', '"\\u12'),
            ("no json, ann", "no json, ann"),
        ],
    )
    def test_escapes_are_read(self, text: str, read: str) -> None:
        reader = JsonReader()
        runs = [*reader.feed(text), *reader.finish()]
        assert "".join(run.text for run in runs) == read
        assert "".join(run.raw for run in runs) == text

    def test_what_is_written_into_a_string_is_escaped(self) -> None:
        assert json.loads(rewritten('{"a":"find me"}', "find", 'a"b\\c\nd')) == {"a": 'a"b\\c\nd me'}

    def test_a_number_becomes_a_string(self) -> None:
        assert rewritten('{"card":4111111111111111}', "4111111111111111", "<C>") == '{"card":"<C>"}'

    def test_a_find_across_strings_leaves_the_structure(self) -> None:
        assert rewritten('["12","34"]', '12","34', "<C>") == '["<C>","<C>"]'


class TestRestored:
    def test_what_was_put_back_is_not_replaced_with_what_is_around_it(self) -> None:
        runs = [Run("Mr ", "Mr "), Run(RESTORED, "Lee"), Run(" jr", " jr")]
        assert write(RunQueue(runs), f"Mr {RESTORED} jr", [span(0, 7)], lambda *_: "<P>") == "<P>Lee<P>"

    def test_a_scanner_does_not_see_the_original(self) -> None:
        pseudonyms = Pseudonyms("kdwzpr")
        placeholder = pseudonyms.placeholder("EMAIL_ADDRESS", "ann@example.com")
        restorer = Restorer(pseudonyms)
        runs = restorer.feed([Run(f"to {placeholder}.", f"to {placeholder}.")])
        assert "".join(run.text for run in runs) == f"to {RESTORED}."
        assert "".join(run.raw for run in runs) == "to ann@example.com."
        assert restorer.restored == 1


class TestPlaceholders:
    @pytest.fixture
    def pseudonyms(self) -> Pseudonyms:
        pseudonyms = Pseudonyms("kdwzpr")
        assert pseudonyms.placeholder("EMAIL_ADDRESS", "a@b.c") == "<EMAIL_ADDRESS_1_kdwzpr>"
        return pseudonyms

    def restored(self, pseudonyms: Pseudonyms, text: str) -> str:
        restorer = Restorer(pseudonyms)
        return "".join(run.raw for run in [*restorer.feed([Run(text, text)]), *restorer.finish()])

    def test_the_same_text_has_the_same_placeholder(self, pseudonyms: Pseudonyms) -> None:
        assert pseudonyms.placeholder("EMAIL_ADDRESS", "a@b.c") == "<EMAIL_ADDRESS_1_kdwzpr>"
        assert pseudonyms.placeholder("PERSON", "a@b.c") == "<PERSON_2_kdwzpr>"

    @pytest.mark.parametrize(
        ("copied", "restored"),
        [
            ("<EMAIL_ADDRESS_1_kdwzpr>", "a@b.c"),
            ("<email_address_1_KDWZPR>", "a@b.c"),
            ("EMAIL_ADDRESS_1_kdwzpr", "a@b.c"),
            (r"EMAIL\_ADDRESS\_1\_kdwzpr", "a@b.c"),
            ("email-address-1-kdwzpr", "a@b.c"),
            ("Email Address 1 kdwzpr", "a@b.c"),
            ("<mailto:EMAIL_ADDRESS_1_kdwzpr>", "<mailto:a@b.c>"),
            ("<a href='<EMAIL_ADDRESS_1_kdwzpr>'>", "<a href='a@b.c'>"),
            ("&lt;EMAIL_ADDRESS_1_kdwzpr&gt;", "&lt;a@b.c&gt;"),
        ],
    )
    def test_as_models_copy_them(self, pseudonyms: Pseudonyms, copied: str, restored: str) -> None:
        assert self.restored(pseudonyms, f"x {copied} y") == f"x {restored} y"

    @pytest.mark.parametrize(
        "other",
        ["<EMAIL_ADDRESS_2_kdwzpr>", "<EMAIL_ADDRESS_1_kdwzpq>", "<PERSON_1_kdwzpr>", "<EMAIL_ADDRESS_1_>", "1_kdwzpr"],
    )
    def test_what_was_not_issued_stays(self, pseudonyms: Pseudonyms, other: str) -> None:
        assert self.restored(pseudonyms, other) == other


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("4111 1111 1111 1234", "**** **** **** 1234"),
        ("1234567", "*******"),
        ("12345678", "****5678"),
        ("", ""),
        ("+44 20 7946 0018", "+** ** **** 0018"),
    ],
)
def test_masks(text: str, hidden: str) -> None:
    assert masked(text) == hidden


def test_hashes_are_of_one_tenant_one_entity_and_one_secret() -> None:
    first = hashed("E", "text", "team", b"secret")
    assert first == hashed("E", "text", "team", b"secret")
    others = [
        hashed("E", "text", "meat", b"secret"),
        hashed("E", "texts", "team", b"secret"),
        hashed("E", "text", "team", b"terces"),
        hashed("Et", "ext", "team", b"secret"),
        hashed("E", "text\ud800", "team", b"secret"),
    ]
    assert len({first, *others}) == 6
