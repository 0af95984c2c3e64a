"""The engines' own arguments, as far as they are set here: the shapes of `model.json` and `model.yaml`.

The names are vLLM's (`AsyncEngineArgs`) and TensorRT-LLM's (`LLM`, and what its arguments are made of). Pure.
"""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from extproc.model_templates.options import Options, Quantization

DRAFT_TOKENS = 3
LORA_RANK = 16


class VllmDraft(Struct, forbid_unknown_fields=True):
    model: str
    num_speculative_tokens: int
    method: Literal["draft_model"] = "draft_model"


class VllmArguments(Struct, forbid_unknown_fields=True):
    """`1/model.json`."""

    model: str
    tensor_parallel_size: int
    pipeline_parallel_size: int
    max_model_len: int
    gpu_memory_utilization: float
    enable_prefix_caching: bool
    disable_log_stats: bool = False
    """True would leave Triton's metrics page without vLLM's."""
    quantization: Literal["fp8", "awq_marlin", "gptq_marlin", "compressed-tensors"] | UnsetType = UNSET
    speculative_config: VllmDraft | UnsetType = UNSET
    enable_lora: bool | UnsetType = UNSET
    max_loras: int | UnsetType = UNSET
    max_lora_rank: int | UnsetType = UNSET


# `awq` and `gptq` would be the slow kernels where the fast ones would do.
_VLLM_WEIGHTS: dict[Quantization, Literal["fp8", "awq_marlin", "gptq_marlin", "compressed-tensors"]] = {
    Quantization.FP8: "fp8",
    Quantization.AWQ: "awq_marlin",
    Quantization.GPTQ: "gptq_marlin",
    Quantization.INT4: "compressed-tensors",
}


def vllm_arguments(options: Options) -> VllmArguments:
    arguments = VllmArguments(
        model=options.model,
        tensor_parallel_size=options.tensor_parallel,
        pipeline_parallel_size=options.pipeline_parallel,
        max_model_len=options.context_window,
        gpu_memory_utilization=options.gpu_memory,
        enable_prefix_caching=options.prefix_caching,
    )
    for quantization in options.quantization:
        arguments.quantization = _VLLM_WEIGHTS[quantization]
    if options.draft_model is not None:
        arguments.speculative_config = VllmDraft(options.draft_model, options.draft_tokens or DRAFT_TOKENS)
    if options.loras:
        arguments.enable_lora = True
        arguments.max_loras = len(options.loras)
        arguments.max_lora_rank = options.lora_rank or LORA_RANK
    return arguments


class KvCache(Struct, forbid_unknown_fields=True):
    enable_block_reuse: bool
    free_gpu_memory_fraction: float


class Weights(Struct, forbid_unknown_fields=True):
    """What the checkpoint has to be: the engine refuses another."""

    quant_algo: Literal["FP8", "W4A16_AWQ", "W4A16_GPTQ"]


class TensorRtLlmDraft(Struct, forbid_unknown_fields=True):
    speculative_model: str
    max_draft_len: int
    decoding_type: Literal["Draft_Target"] = "Draft_Target"


class Adapters(Struct, forbid_unknown_fields=True):
    lora_dir: list[str]
    max_lora_rank: int
    max_loras: int
    max_cpu_loras: int


class InTriton(Struct, frozen=True, forbid_unknown_fields=True):
    """Read by NVIDIA's model.py, not by the engine: it streams, and batches by itself."""

    max_batch_size: Literal[0] = 0
    decoupled: bool = True


class TensorRtLlmArguments(Struct, forbid_unknown_fields=True):
    """`1/model.yaml`."""

    model: str
    tensor_parallel_size: int
    pipeline_parallel_size: int
    max_seq_len: int
    kv_cache_config: KvCache
    backend: Literal["pytorch"] = "pytorch"
    quant_config: Weights | UnsetType = UNSET
    speculative_config: TensorRtLlmDraft | UnsetType = UNSET
    disable_overlap_scheduler: bool | UnsetType = UNSET
    lora_config: Adapters | UnsetType = UNSET
    triton_config: InTriton = InTriton()


_TENSORRTLLM_WEIGHTS: dict[Quantization, Literal["FP8", "W4A16_AWQ", "W4A16_GPTQ"]] = {
    Quantization.FP8: "FP8",
    Quantization.AWQ: "W4A16_AWQ",
    Quantization.GPTQ: "W4A16_GPTQ",
}


def tensorrtllm_arguments(options: Options) -> TensorRtLlmArguments:
    arguments = TensorRtLlmArguments(
        model=options.model,
        tensor_parallel_size=options.tensor_parallel,
        pipeline_parallel_size=options.pipeline_parallel,
        max_seq_len=options.context_window,
        kv_cache_config=KvCache(options.prefix_caching, options.gpu_memory),
    )
    for quantization in options.quantization:
        arguments.quant_config = Weights(_TENSORRTLLM_WEIGHTS[quantization])
    if options.draft_model is not None:
        arguments.speculative_config = TensorRtLlmDraft(options.draft_model, options.draft_tokens or DRAFT_TOKENS)
        arguments.disable_overlap_scheduler = True
    if options.loras:
        count = len(options.loras)
        rank = options.lora_rank or LORA_RANK
        arguments.lora_config = Adapters([lora.path for lora in options.loras], rank, count, count)
    return arguments
