"""How many tokens a text, a chat or another request is for one model.

Counting is plain computation, 20 µs per KB (built-in encodings) to 200 µs per KB (WordPiece): the caller runs long
texts in a thread, and the event loop goes on meanwhile.
"""

from __future__ import annotations

import functools
import json

from extproc.config.models import ChatTemplate as TemplateConfig
from extproc.config.models import HuggingfaceTokenizer, SentencepieceTokenizer, TiktokenTokenizer
from extproc.config.models import Tokenizer as TokenizerConfig
from extproc.dialects.interface import InferenceRequest, InvalidRequest
from extproc.dialects.openai_requests import ChatRequest, CompletionRequest, EmbeddingsRequest, inputs_of
from extproc.operation import Operation
from extproc.rejection import invalid_request
from extproc.tokenization.encodings import BuiltInBpe, Encoding, HuggingFace, RankFile, SentencePiece
from extproc.tokenization.jinja import JinjaTemplate, special_tokens_in
from extproc.tokenization.templates import BUILT_IN, ChatTemplate, Preparation

MEDIA_TOKENS = 765
"""What an image (or another part that is not text) is reckoned at: OpenAI's price of a 1024 x 1024 image in high
detail. The upstream's own usage replaces the estimate."""

ACCOUNTED = "openai"
"""The template name for chats that the upstream renders itself."""

_PER_MESSAGE, _PER_NAME, _PRIMING = 3, 1, 3


class ModelTokenizer:
    """Counts for one model. Safe to use from several threads. `template` None: the upstream renders chats itself, and
    they are counted as OpenAI counts its own (3 tokens a message, 1 a name, 3 for the answer's start)."""

    def __init__(self, encoding: Encoding, template: ChatTemplate | None, media_tokens: int = MEDIA_TOKENS) -> None:
        self._encoding = encoding
        self._template = template
        self._media_tokens = media_tokens
        self._preparation = Preparation(encoding.special_tokens)

    def count_text(self, text: str) -> int:
        """Plain text, a model's answer for instance; a special token written out in it is text."""
        return self._encoding.count(text)

    def count_request(self, request: InferenceRequest) -> int:
        """Prompt tokens, with all that template and tokenizer add. Raises InvalidRequest if it can't be rendered."""
        if isinstance(request, ChatRequest):
            text = self._count_accounted(request) if self._template is None else self._count_rendered(request)
            return text + self._media_tokens * _media_parts(request)
        if isinstance(request, CompletionRequest | EmbeddingsRequest):
            inputs = inputs_of(request.fields["prompt" if request.operation is Operation.COMPLETIONS else "input"])
            return sum(map(self.count_input, inputs))
        return sum(self._encoding.count_prompt(segment.text) for segment in request.texts())

    def count_input(self, item: str | list[int]) -> int:
        """One of the inputs of a request: a text, or tokens."""
        return self._encoding.count_prompt(item) if isinstance(item, str) else len(item)

    def render_chat(self, request: InferenceRequest) -> str:
        """The prompt for a server that takes text, without the token that the server itself puts in front."""
        assert isinstance(request, ChatRequest), "only chats have a template"
        prompt = self._render(request)
        begin = self._encoding.begin or (self._template.begin if self._template else "")
        return prompt.removeprefix(begin) if begin else prompt

    def _render(self, request: ChatRequest) -> str:
        if self._template is None:
            raise InvalidRequest(invalid_request(f"The model `{request.model}` has no chat template.", "model"))
        messages = self._preparation.messages(request.messages)
        return self._template.render(messages, self._preparation.tools(request.fields.get("tools")))

    def _count_rendered(self, request: ChatRequest) -> int:
        return self._encoding.count_rendered(self._render(request))

    def _count_accounted(self, request: ChatRequest) -> int:
        count = self._encoding.count
        total = _PRIMING
        for message in request.messages:
            total += _PER_MESSAGE + count(message["role"])
            if message.get("name"):
                total += _PER_NAME + count(message["name"])
            for call in message.get("tool_calls") or ():
                total += count((call.get("function") or {}).get("name", ""))
        total += sum(count(segment.text) for segment in request.texts())
        tools = request.fields.get("tools")
        return total + (count(json.dumps(tools, ensure_ascii=False)) if tools else 0)


def _media_parts(request: ChatRequest) -> int:
    contents = (message.get("content") for message in request.messages)
    return sum(
        part["type"] not in ("text", "refusal") for content in contents if type(content) is list for part in content
    )


def load(tokenizer: TokenizerConfig, template: TemplateConfig | None) -> ModelTokenizer:
    """Read the files that a model's configuration names. Raises ValueError for one that is not what it should be.

    While these files stay as they are, equal settings give the same tokenizer again: loading takes up to 0.2 s.
    """
    files = (getattr(tokenizer, "file", None), getattr(template, "file", None))
    return _load(tokenizer, template, tuple(file.stat().st_mtime_ns for file in files if file is not None))


@functools.lru_cache(maxsize=64)
def _load(tokenizer: TokenizerConfig, template: TemplateConfig | None, changed_ns: tuple[int, ...]) -> ModelTokenizer:
    if template is None or template == ACCOUNTED:
        return ModelTokenizer(_encoding(tokenizer, frozenset()), None)
    if isinstance(template, str):
        if template not in BUILT_IN:
            known = ", ".join(sorted([*BUILT_IN, ACCOUNTED]))
            raise ValueError(f"there is no chat template {template}; built in are {known}")
        built_in = BUILT_IN[template]
        return ModelTokenizer(_encoding(tokenizer, built_in.special_tokens), built_in)
    source = template.file.read_text(encoding="utf-8")
    encoding = _encoding(tokenizer, special_tokens_in(source))
    try:
        return ModelTokenizer(encoding, JinjaTemplate(source, encoding.begin))
    except ValueError as error:
        raise ValueError(f"{template.file} is not a chat template: {error}") from None


def _encoding(tokenizer: TokenizerConfig, special_tokens: frozenset[str]) -> Encoding:
    match tokenizer:
        case TiktokenTokenizer(encoding=str(name)):
            return BuiltInBpe(name, special_tokens)
        case TiktokenTokenizer(file=path, pattern=pattern):
            assert path is not None, "the configuration was checked"
            return RankFile(path, pattern or "", special_tokens)
        case HuggingfaceTokenizer(file=path):
            return HuggingFace(path, special_tokens)
        case SentencepieceTokenizer(file=path):
            return SentencePiece(path, special_tokens)
