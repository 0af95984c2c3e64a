"""Token counts against published vectors and reference implementations."""

from __future__ import annotations

import importlib
import io
import json
import threading
import time
from pathlib import Path

import pytest
import sentencepiece
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, processors

from extproc.tokenization.encodings import PATTERNS, BuiltInBpe, Encoding, HuggingFace, RankFile, SentencePiece, _slices
from tests.helpers import data

CHATML = frozenset({"<|im_start|>", "<|im_end|>"})
WORDS = ["the", "quick", "brown", "fox", "<", "|", ">", "im_start", "[", "]", "CLS"]


def vectors(encoding: str) -> list[tuple[str, int]]:
    lines = map(json.loads, data.path("tokenizers/vectors.jsonl").read_text().splitlines())
    return [(line["text"], len(line["ids"])) for line in lines if line["encoding"] == encoding]


def rank_file(name: str, pattern: str) -> RankFile:
    return RankFile(data.path(f"tokenizers/{name}.tiktoken"), pattern, CHATML)


@pytest.mark.parametrize("name", ["cl100k_base", "o200k_base"])
def test_built_in_encodings_count_the_vectors(name: str) -> None:
    encoding = BuiltInBpe(name, ())
    assert [(text, encoding.count(text)) for text, _ in vectors(name)] == vectors(name)


@pytest.mark.parametrize(
    ("file", "pattern", "name"),
    [
        ("cl100k_base", "cl100k_base", "cl100k_base"),
        ("o200k_base", "o200k_base", "o200k_base"),
        ("qwen", "qwen", "llamacpp:qwen2"),
    ],
)
def test_rank_files_count_the_vectors(file: str, pattern: str, name: str) -> None:
    encoding = rank_file(file, pattern)
    assert [(text, encoding.count(text)) for text, _ in vectors(name)] == vectors(name)


@pytest.fixture(scope="module", params=["cl100k_base", "o200k_base"])
def pair(request: pytest.FixtureRequest) -> tuple[BuiltInBpe, RankFile]:
    return BuiltInBpe(request.param, ()), rank_file(request.param, request.param)


ODD = ["'s", "'LL", "é", "İ", "ß", "中文", "🌍", "\u2028", "́", "\x00", "/", "!?", "123", "a", "Z", "<|endoftext|>"]
odd = st.sampled_from([*ODD, " ", "  ", "\n", "\r\n", "\t"])
texts = st.lists(odd | st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=30).map("".join)


@settings(max_examples=300, deadline=None)
@given(text=texts)
def test_built_in_encodings_count_as_tiktoken_does(pair: tuple[BuiltInBpe, RankFile], text: str) -> None:
    assert pair[0].count(text) == pair[1].count(text)


def test_no_slice_is_so_long_that_the_event_loop_stands_still() -> None:
    for text in ("x" * (5 << 19), "word " * 100_000 + "x" * (3 << 19) + " word" * 100_000):
        slices = list(_slices(text))
        assert "".join(slices) == text
        assert max(map(len, slices)) <= 1 << 20


def test_long_texts_in_slices_count_as_whole(pair: tuple[BuiltInBpe, RankFile]) -> None:
    text = "The quick brown fox's 12345 rivers don't\n\n  end, x y  z. 中文 abc " * 3000
    assert len(text) > 1 << 17
    assert pair[0].count(text) == pair[1].count(text)


def test_special_tokens_in_plain_text_are_text() -> None:
    encoding = BuiltInBpe("cl100k_base", CHATML)
    assert encoding.count("<|im_start|>") > 1
    assert encoding.count_prompt("<|endoftext|>") > 1
    assert encoding.count_rendered("<|im_start|>user\nhi<|im_end|>\n") == 2 + encoding.count("user\nhi") + 1


def test_gpt2_splits_as_tiktokens_does() -> None:
    assert importlib.import_module("tiktoken_ext.openai_public").r50k_pat_str == PATTERNS["gpt2"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.tiktoken"
    bad.write_text("IQ== 0\nnot a rank\n")
    with pytest.raises(ValueError, match=r"bad.tiktoken:2"):
        RankFile(bad, "qwen", ())
    bad.write_text("IQ== 0\n")
    with pytest.raises(ValueError, match="not a tiktoken rank file"):
        RankFile(bad, "qwen", ())
    with pytest.raises(ValueError, match="no pattern klingon"):
        RankFile(bad, "klingon", ())
    with pytest.raises(ValueError, match=r"not a tokenizer\.json"):
        HuggingFace(bad, ())
    with pytest.raises(ValueError, match="not a SentencePiece model"):
        SentencePiece(bad, ())


@pytest.fixture(scope="module")
def tokenizer_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small `tokenizer.json` with baked-in truncation and padding, special tokens and a template around inputs."""
    vocabulary = {word: index for index, word in enumerate(["[UNK]", "[CLS]", "[SEP]", "<|im_start|>", *WORDS])}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    tokenizer.add_special_tokens(["[CLS]", "[SEP]", "<|im_start|>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="$A $B", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4)
    folder = tmp_path_factory.mktemp("hf")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": {"content": "[CLS]"}}))
    return folder / "tokenizer.json"


def test_a_tokenizer_json_counts_without_its_truncation_and_padding(tokenizer_json: Path) -> None:
    encoding = HuggingFace(tokenizer_json, ())
    assert encoding.count("the") == 1
    assert encoding.count("the quick " * 50) == 100
    assert encoding.count_prompt("the fox") == 4
    assert encoding.begin == "[CLS]"
    assert encoding.special_tokens == {"[CLS]", "[SEP]", "<|im_start|>"}


def test_a_tokenizer_json_takes_special_tokens_in_prompts_only(tokenizer_json: Path) -> None:
    encoding = HuggingFace(tokenizer_json, ())
    assert encoding.count_rendered("<|im_start|>fox[SEP]") == 3
    assert encoding.count("<|im_start|>fox[SEP]") > 3


def sentencepiece_model(folder: Path) -> Path:
    written = io.BytesIO()
    sentences = [f"the quick brown fox jumps over the lazy dog {number}" for number in range(200)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=written, vocab_size=60, hard_vocab_limit=False, minloglevel=2
    )
    path = folder / "tokenizer.model"
    path.write_bytes(written.getvalue())
    return path


def test_a_sentencepiece_model(tmp_path: Path) -> None:
    encoding = SentencePiece(sentencepiece_model(tmp_path), ())
    fox = encoding.count("the fox")
    assert encoding.begin == "<s>"
    assert encoding.count_prompt("the fox") == fox + 1
    assert encoding.count_rendered("<s>the fox</s>") == fox + 2
    assert encoding.count("<s>") > 1


def test_the_encoder_models_own_vocabulary_counts_its_vectors() -> None:
    built = Path(__file__).parents[3] / ".local" / "models" / "minilm" / "tokenizer.json"
    if not built.exists():
        pytest.skip("the encoder is not built here (make run builds it)")
    encoding = HuggingFace(built, ())
    name = "llamacpp:bert-bge"  # the same vocabulary
    assert [(text, encoding.count(text)) for text, _ in vectors(name)] == vectors(name)


@pytest.mark.parametrize("kind", ["built-in", "tiktoken", "huggingface"])
def test_other_threads_go_on_while_a_long_text_is_counted(kind: str, tokenizer_json: Path) -> None:
    makers: dict[str, Encoding] = {}
    if kind == "built-in":
        makers[kind] = BuiltInBpe("cl100k_base", ())
    elif kind == "tiktoken":
        makers[kind] = rank_file("qwen", "qwen")
    else:
        makers[kind] = HuggingFace(tokenizer_json, ())
    thread = threading.Thread(target=makers[kind].count, args=("the quick brown fox. " * 100_000,))
    thread.start()
    turns = 0
    while thread.is_alive():
        time.sleep(0.001)
        turns += 1
    assert turns > 2


def test_tiktokens_own_encodings_are_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may reach for the network: tiktoken downloads vocabularies that it is asked for by name."""
    monkeypatch.setattr(tiktoken, "get_encoding", None)
    assert BuiltInBpe("o200k_base", ()).count("hello world") == 2
