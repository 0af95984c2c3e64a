"""The `models` section: what a client may ask for by name.

Must not know: how text is tokenised or a template is rendered; it only says which.
"""

import functools
from decimal import Decimal
from typing import Annotated, Any, Literal

import pydantic

from extproc import money
from extproc.config.section import ExistingFile, Name, Section
from extproc.operation import Operation


def _no_float(value: Any) -> Any:
    """A YAML number has been a float on its way here."""
    if isinstance(value, int | float):
        raise ValueError('write an amount of money in quotes: "2.50"')
    return value


Amount = Annotated[
    str,
    pydantic.BeforeValidator(_no_float),
    pydantic.StringConstraints(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?$"),
]
Currency = Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Z]{3}$")]


class TiktokenTokenizer(Section):
    """A BPE vocabulary of the tiktoken family: a built-in encoding, or a rank file with its split pattern."""

    type: Literal["tiktoken"]

    encoding: Literal["cl100k_base", "o200k_base"] | None = None
    """A built-in encoding."""

    file: ExistingFile | None = None
    """A rank file (`.tiktoken`), relative to the configuration file."""

    pattern: str | None = None
    """Name of the pattern that splits text before the ranks of `file` apply."""


class HuggingfaceTokenizer(Section):
    """A `tokenizer.json`, as published with most models."""

    type: Literal["huggingface"]

    file: ExistingFile
    """The `tokenizer.json`, relative to the configuration file."""


class SentencepieceTokenizer(Section):
    """A SentencePiece model."""

    type: Literal["sentencepiece"]

    file: ExistingFile
    """The `.model` file, relative to the configuration file."""


Tokenizer = Annotated[TiktokenTokenizer | HuggingfaceTokenizer | SentencepieceTokenizer, pydantic.Discriminator("type")]


class TemplateFile(Section):
    """A chat template of one's own."""

    file: ExistingFile
    """A Jinja file as in `tokenizer_config.json`'s `chat_template`, relative to the configuration file."""


def _template_tag(value: Any) -> str:
    return "template-name" if isinstance(value, str) else "template-file"


ChatTemplate = Annotated[
    Annotated[Name, pydantic.Tag("template-name")] | Annotated[TemplateFile, pydantic.Tag("template-file")],
    pydantic.Discriminator(_template_tag),
]


class ModelPrice(Section):
    """What a model costs. Amounts are decimal numbers in quotes, with at most 9 decimal places."""

    input_per_mtok: Amount = "0"
    """Per million prompt tokens."""

    cached_input_per_mtok: Amount | None = None
    """Per million prompt tokens that the upstream had in its cache; by default as any other prompt token."""

    output_per_mtok: Amount = "0"
    """Per million tokens of answers."""

    per_request: Amount = "0"
    """Per request, whatever its size."""

    currency: Currency = "USD"
    """The currency's three-letter code."""

    @functools.cached_property
    def exact(self) -> money.Price:
        """The same to reckon with."""
        cached_input = self.input_per_mtok if self.cached_input_per_mtok is None else self.cached_input_per_mtok
        return money.Price(
            _nano(self.input_per_mtok),
            _nano(cached_input),
            _nano(self.output_per_mtok),
            _nano(self.per_request),
            self.currency,
        )


def _nano(amount: str) -> int:
    return money.nano_from_decimal(Decimal(amount))


class Model(Section):
    """A public model name."""

    pool: Name
    """The pool that serves it: a key of `pools`."""

    operations: Annotated[tuple[Operation, ...], pydantic.Field(min_length=1)]
    """What clients may have it do: `chat`, `completions`, `embeddings`, `infer`."""

    tokenizer: Tokenizer | None = None
    """How its tokens are counted; without one, counts are estimates until the upstream reports its own."""

    chat_template: ChatTemplate | None = None
    """How a conversation becomes one text: a built-in name (`chatml`) or `{file: template.jinja}`."""

    context_window: Annotated[int, pydantic.Field(gt=0)]
    """Most tokens that a prompt and its answer may have together."""

    max_output_tokens: Annotated[int, pydantic.Field(gt=0)] | None = None
    """Most tokens of an answer, and the default where a client names none; by default the window."""

    price: ModelPrice | None = None
    """What it costs; without one its requests cost nothing."""

    revision: Annotated[str, pydantic.StringConstraints(pattern=r"^\S{0,64}$")] = ""
    """Change it when the same names serve another model (new weights, say): answers cached before are forgotten."""

    @property
    def renders(self) -> bool:
        """Its chats can be written as one text here, for servers that take no more."""
        return self.tokenizer is not None and self.chat_template not in (None, "openai")
