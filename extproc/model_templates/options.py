"""What can be asked of a new model, and what contradicts itself. Pure.

The combinations that no engine carries are from vLLM's and TensorRT-LLM's own tables (docs/model-templates.md).
"""

import enum
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_GPUS = 1024
LORA_RANKS = (8, 16, 32, 64, 128, 256)
"""What both engines take."""

# As `Name` of the configuration: it becomes a directory, a pool and a label.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,1024}")


class Backend(enum.StrEnum):
    VLLM = "vllm"
    TENSORRTLLM = "tensorrtllm"


class Quantization(enum.StrEnum):
    """How the weights are kept."""

    FP8 = "fp8"
    AWQ = "awq"
    GPTQ = "gptq"
    INT4 = "int4"


class Refused(ValueError):
    """Options that can't be had, or not together; the message is for whoever gave them."""


@dataclass(frozen=True, slots=True)
class Lora:
    """An adapter, by the name that becomes part of a model's, and where the server finds it."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Options:
    """One model. Raises Refused."""

    name: str
    backend: Backend
    model: str
    """A Hugging Face name, or a directory on the server."""
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    gpu_ids: Sequence[int] = ()
    context_window: int = 8192
    """Tokens of a prompt and its answer."""
    gpu_memory: float = 0.9
    """vLLM: share of each GPU's memory; TensorRT-LLM: share of what the weights leave, for the KV cache."""
    prefix_caching: bool = True
    quantization: Sequence[Quantization] = ()
    draft_model: str | None = None
    draft_tokens: int | None = None
    loras: Sequence[Lora] = ()
    lora_rank: int | None = None
    http_port: int = 8000
    """Triton's own."""

    def __post_init__(self) -> None:
        for complaint in _complaints(self):
            raise Refused(complaint)

    @property
    def gpus(self) -> int:
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def engine_name(self) -> str:
        """The model that the backend itself runs; TensorRT-LLM's has another schema, so another stands before it."""
        return self.name if self.backend is Backend.VLLM else f"{self.name}-engine"

    def adapted_name(self, lora: Lora) -> str:
        """The model that is this one with an adapter."""
        return f"{self.name}-{lora.name}"

    @property
    def names(self) -> tuple[str, ...]:
        """Every directory that it becomes, the engine's first."""
        own = dict.fromkeys((self.engine_name, self.name))
        return (*own, *(self.adapted_name(lora) for lora in self.loras))


def _complaints(options: Options) -> Iterator[str]:
    yield from _names(options)
    yield from _sizes(options)
    yield from _devices(options)
    yield from _weights(options)
    yield from _drafts(options)
    yield from _loras(options)


def _names(options: Options) -> Iterator[str]:
    for name in options.names:
        if not _NAME.fullmatch(name):
            yield f"{name!r} is no name: letters, digits, - and _, at most 63, and a letter or digit first"
    if len(set(options.names)) < len(options.names):
        yield "two adapters would have the same name, or the engine's"
    places = (options.model, options.draft_model, *(lora.path for lora in options.loras))
    for place in places:
        if place is not None and not _PRINTABLE.fullmatch(place):
            yield f"{place!r} is neither a path nor the name of a model"


def _sizes(options: Options) -> Iterator[str]:
    for size, what in ((options.tensor_parallel, "tensor"), (options.pipeline_parallel, "pipeline")):
        if size < 1:
            yield f"{what} parallelism is over 1 GPU at least"
    if options.gpus > MAX_GPUS:
        yield f"{options.gpus} GPUs are more than {MAX_GPUS}"
    if options.context_window < 1:
        yield "a context window has 1 token at least"
    if not 0 < options.gpu_memory <= 1:
        yield "the share of GPU memory is above 0 and at most 1"


def _devices(options: Options) -> Iterator[str]:
    ids = options.gpu_ids
    if not ids:
        return
    if options.backend is Backend.TENSORRTLLM:
        yield "GPUs can't be chosen for one TensorRT-LLM engine: start Triton with CUDA_VISIBLE_DEVICES"
    if len(set(ids)) < len(ids) or min(ids) < 0:
        yield "each GPU is given once, by its number"
    if len(ids) != options.gpus:
        yield f"{len(ids)} GPUs are given, tensor x pipeline parallelism takes {options.gpus}"


def _weights(options: Options) -> Iterator[str]:
    if len(options.quantization) > 1:
        yield f"weights are kept in one way: {' and '.join(options.quantization)} exclude each other"
    if Quantization.INT4 in options.quantization and options.backend is Backend.TENSORRTLLM:
        yield "TensorRT-LLM's 4-bit integers are awq or gptq: say which of them the checkpoint is"


def _drafts(options: Options) -> Iterator[str]:
    if options.draft_model is None:
        if options.draft_tokens is not None:
            yield "draft tokens need a draft model"
        return
    if options.draft_tokens is not None and not 1 <= options.draft_tokens <= 64:
        yield "a draft has 1 to 64 tokens"
    if options.pipeline_parallel > 1:
        yield f"{options.backend} has no speculative decoding with pipeline parallelism: use tensor parallelism"
    if options.loras:
        known = "has no speculative decoding with adapters" if options.backend is Backend.VLLM else "never tested both"
        yield f"a draft model and LoRA exclude each other: {options.backend} {known}"


def _loras(options: Options) -> Iterator[str]:
    if options.lora_rank is None:
        return
    if not options.loras:
        yield "a rank of adapters needs adapters"
    if options.lora_rank not in LORA_RANKS:
        yield f"an adapter's rank is one of {', '.join(map(str, LORA_RANKS))}"
