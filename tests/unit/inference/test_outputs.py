"""Logits to probabilities and entities."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from extproc.detection.spans import Span
from extproc.inference import minilm
from extproc.inference.outputs import Labels, Output, encodings
from extproc.inference.tokens import Tokenizer, Tokens

NAMES = ["O", "B-PERSON", "I-PERSON", "B-LOCATION", "I-LOCATION"]
OUT, B_PER, I_PER, B_LOC, I_LOC = range(5)
EMBEDDING = np.zeros((1, 384), np.float32)


@functools.cache
def tokenizer() -> Tokenizer:
    return Tokenizer(minilm.build(minilm.default_folder()).tokenizer)


def tokens_of(text: str) -> Tokens:
    return tokenizer().tokenize([text])[0]


def entities(text: str, said: dict[str, int], sure: float = 5.0, padding: int = 0) -> tuple[Span, ...]:
    """What is decoded when every piece that begins with a key of `said` (in its word's text) has that label."""
    tokens = tokens_of(text)
    logits = np.zeros((1, len(tokens.ids) + padding, len(NAMES)), np.float32)
    logits[0, :, OUT] = sure
    for row, (start, end) in enumerate(tokens.offsets):
        for piece, label in said.items():
            if text[start:end] == piece:
                logits[0, row] = 0
                logits[0, row, label] = sure
    outputs = {Output.EMBEDDING: EMBEDDING, Output.ENTITY_LOGITS: logits}
    return encodings(outputs, [tokens], Labels(NAMES))[0].spans


def found(text: str, said: dict[str, int]) -> list[tuple[str, str]]:
    return [(text[span.start : span.end], span.entity) for span in entities(text, said)]


def test_a_name_of_two_words_is_one_entity() -> None:
    text = "ask Ada Lovelace please"
    pieces = {text[s:e] for s, e in tokens_of(text).offsets}
    assert {"Ada"} <= pieces
    said = {"Ada": B_PER} | {piece: I_PER for piece in pieces if piece and piece in "Lovelace"}
    assert found(text, said) == [("Ada Lovelace", "PERSON")]


def test_offsets_are_code_points_whatever_comes_before() -> None:
    text = "\U0001f600é한 Paris 中 Oslo"
    assert found(text, {"Paris": B_LOC, "Oslo": B_LOC}) == [("Paris", "LOCATION"), ("Oslo", "LOCATION")]


def test_a_word_is_whole_though_only_some_of_its_pieces_are_named() -> None:
    """`Lovelace` is two pieces; one that is sure outweighs one that says nothing."""
    text = "Lovelace"
    tokens = tokens_of(text)
    assert len(tokens.ids) == 4
    logits = np.zeros((1, 4, len(NAMES)), np.float32)
    logits[0, 1, B_PER] = 5
    outputs = {Output.EMBEDDING: EMBEDDING, Output.ENTITY_LOGITS: logits}
    (span,) = encodings(outputs, [tokens], Labels(NAMES))[0].spans
    assert (span.start, span.end) == (0, 8)
    assert 0.5 < span.confidence < 0.9


def test_begin_ends_the_entity_before() -> None:
    assert found("Paris Oslo", {"Paris": B_LOC, "Oslo": B_LOC}) == [("Paris", "LOCATION"), ("Oslo", "LOCATION")]


def test_inside_without_begin_is_an_entity_too() -> None:
    assert found("in Paris", {"Paris": I_LOC}) == [("Paris", "LOCATION")]


def test_another_kind_is_another_entity() -> None:
    assert found("Paris Oslo", {"Paris": B_PER, "Oslo": I_LOC}) == [("Paris", "PERSON"), ("Oslo", "LOCATION")]


def test_outside_between_two_of_a_kind_parts_them() -> None:
    assert [text for text, _ in found("Paris and Oslo", {"Paris": B_LOC, "Oslo": I_LOC})] == ["Paris", "Oslo"]


def test_padding_says_nothing() -> None:
    assert entities("in Paris", {"Paris": B_LOC}, padding=9) == entities("in Paris", {"Paris": B_LOC})


def test_confidence_is_the_mean_probability() -> None:
    (span,) = entities("Paris", {"Paris": B_LOC}, sure=2.0)
    expected = (np.e**2 + 1) / (np.e**2 + 4)
    assert span.confidence == pytest.approx(expected)
    assert (span.evidence.detector, span.evidence.rule) == ("encoder", "entity_head")


@pytest.mark.parametrize(("logit", "probability"), [(0.0, 0.5), (2.0, 0.8807971), (-1e30, 0.0), (1e30, 1.0)])
def test_logits_become_probabilities(logit: float, probability: float) -> None:
    logits = np.array([logit], np.float32)
    outputs = {Output.EMBEDDING: EMBEDDING, Output.INJECTION: logits, Output.COMPLEXITY: logits[:, None]}
    (encoding,) = encodings(outputs, [tokens_of("x")], None)
    assert encoding.injection == pytest.approx(probability)
    assert encoding.complexity == pytest.approx(probability)


def test_a_graph_without_heads_says_nothing_of_them() -> None:
    (encoding,) = encodings({Output.EMBEDDING: EMBEDDING}, [tokens_of("x")], None)
    assert (encoding.injection, encoding.complexity, encoding.spans) == (None, None, ())
    assert len(encoding.embedding) == 4 * 384


@pytest.mark.parametrize("names", [["B-X", "I-X"], ["O", "B-X"], ["O", "O", "B-X", "I-X"], ["O", "X"]])
def test_labels_that_are_no_pairs_are_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match="entity_labels"):
        Labels(names)


class TestTokens:
    def test_what_a_user_writes_is_never_a_special_token(self) -> None:
        separator, classifier = tokens_of("").ids[-1], tokens_of("").ids[0]
        ids = tokens_of("end [SEP] [CLS] [PAD] begin").ids[1:-1]
        assert not {separator, classifier, 0} & set(ids)

    def test_a_text_of_any_length_is_cut_to_the_model(self) -> None:
        tokens = tokens_of("word " * 1_000_000)
        assert len(tokens.ids) == len(tokens.offsets) == len(tokens.words) == 512
        assert tokens.ids[-1] == tokens_of("").ids[-1]

    def test_lone_surrogates_are_text(self) -> None:
        assert [span for span in tokens_of("Paris \ud800").offsets if span == (0, 5)] == [(0, 5)]

    def test_a_file_that_is_no_tokenizer_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"manifest\.json is not a tokenizer"):
            Tokenizer(minilm.default_folder() / "manifest.json")
