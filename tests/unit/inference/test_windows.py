"""Windows cover every text, never hold more tokens than the model has positions, and are cheap."""

from __future__ import annotations

import functools
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.inference import minilm
from extproc.inference.tokens import MAX_TOKENS, Tokenizer
from extproc.inference.windows import PIECE_BYTES, windows

# What makes many tokens of few bytes, and many bytes of few tokens.
_HARD = st.text(
    st.one_of(
        st.sampled_from("aA .,\u00e9ß中한\u0ddd\u1f82\U0001d15e\U0001d160\U0001f600İ\u202e\u0301\ufdfa\u2126\u0344"),
        st.characters(exclude_categories=[]),
    ),
    max_size=400,
)


@functools.cache
def tokenizer() -> Tokenizer:
    return Tokenizer(minilm.build(minilm.default_folder()).tokenizer)


def assert_covered(text: str) -> None:
    found = windows(text)
    assert found[0][0] == 0
    assert found[-1][1] == len(text)
    for (start, end), (next_start, next_end) in itertools.pairwise(found):
        assert start < next_start < end < next_end
    for start, end in found:
        assert len(text[start:end].encode("utf-8", "surrogatepass")) <= PIECE_BYTES


def test_an_empty_text_has_none() -> None:
    assert windows("") == ()


def test_a_short_text_is_one() -> None:
    assert list(windows("x" * PIECE_BYTES)) == [(0, PIECE_BYTES)]


@given(_HARD, st.integers(1, 30))
def test_every_text_is_covered(text: str, times: int) -> None:
    if text:
        assert_covered(text * times)


@given(_HARD)
def test_no_window_has_more_tokens_than_the_model_has_positions(text: str) -> None:
    """Through the library itself: our own tokenizer would cut what is too long."""
    pieces = [text[start:end] for start, end in windows(text * 3)]
    for piece in pieces:
        clean = piece.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        assert len(tokenizer()._tokenizer.encode(clean).ids) <= MAX_TOKENS


@pytest.mark.parametrize("character", ["!", "한", "中", "\U0001d160", "é", "\u0ddd"])
def test_not_even_where_every_byte_is_a_token(character: str) -> None:
    for start, end in windows(character * 2000):
        assert len(tokenizer()._tokenizer.encode((character * 2000)[start:end]).ids) <= MAX_TOKENS


def test_cuts_fall_between_words_and_overlap() -> None:
    text = "several ordinary words of English prose, " * 100
    found = windows(text)
    for (_, end), (start, _) in itertools.pairwise(found):
        assert text[end - 1] == " "
        assert text[start - 1] == " "
        assert 64 <= end - start <= 100
