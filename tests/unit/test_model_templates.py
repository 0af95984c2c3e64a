"""What `extproc models new` writes and refuses, checked by the real protobuf, by tables of documented names, and by the
gateway's own strict check."""

import itertools
import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import pytest
import yaml
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from extproc import gateway_file
from extproc.cli.main import main
from extproc.config.address import TcpAddress
from extproc.model_templates import gateway_section, rendering, repository
from extproc.model_templates.engines import TensorRtLlmArguments, VllmArguments
from extproc.model_templates.gateway_section import Serving
from extproc.model_templates.options import Backend, Lora, Options, Quantization, Refused

ROOT = Path(__file__).resolve().parents[2]
SERVING = Serving([TcpAddress("10.0.0.1", 8000), TcpAddress("10.0.0.2", 8000)])
LORAS = (Lora("alpaca", "/loras/alpaca"), Lora("law", "/loras/a law"))

# vLLM's AsyncEngineArgs and SpeculativeConfig, TensorRT-LLM's LLM arguments and the configurations in them, and
# triton_config as NVIDIA's model.py reads it: by their documentation (docs/model-templates.md).
DOCUMENTED_VLLM = {
    "": "model tensor_parallel_size pipeline_parallel_size max_model_len gpu_memory_utilization enable_prefix_caching "
    "disable_log_stats quantization speculative_config enable_lora max_loras max_lora_rank",
    "speculative_config": "method model num_speculative_tokens",
}
DOCUMENTED_TENSORRTLLM = {
    "": "model backend tensor_parallel_size pipeline_parallel_size max_seq_len kv_cache_config quant_config "
    "speculative_config disable_overlap_scheduler lora_config triton_config",
    "kv_cache_config": "enable_block_reuse free_gpu_memory_fraction",
    "quant_config": "quant_algo",
    "speculative_config": "decoding_type max_draft_len speculative_model",
    "lora_config": "lora_dir max_lora_rank max_loras max_cpu_loras",
    "triton_config": "max_batch_size decoupled",
}
# Inputs and outputs of Triton's vLLM backend and of the LLM API's model, with their types.
DOCUMENTED_TENSORS = {
    "text_input": "STRING", "stream": "BOOL", "sampling_parameters": "STRING", "exclude_input_in_output": "BOOL",
    "return_finish_reason": "BOOL", "return_num_input_tokens": "BOOL", "return_num_output_tokens": "BOOL",
    "streaming": "BOOL", "sampling_param_max_tokens": "INT32", "sampling_param_temperature": "FP32",
    "sampling_param_top_k": "INT32", "sampling_param_top_p": "FP32", "sampling_param_seed": "UINT64",
    "sampling_param_stop": "STRING", "sampling_param_frequency_penalty": "FP32",
    "sampling_param_presence_penalty": "FP32", "sampling_param_exclude_input_from_output": "BOOL",
    "lora_id": "UINT64", "lora_name": "STRING", "lora_path": "STRING",
    "text_output": "STRING", "finish_reason": "STRING", "num_input_tokens": "UINT32", "num_output_tokens": "UINT32",
}  # fmt: skip


def combinations() -> Iterator[dict[str, Any]]:
    """Every one of the seven kinds, with and without every other."""
    parallel = ((1, 1), (2, 1), (1, 2), (2, 4))
    quantizations: tuple[tuple[Quantization, ...], ...] = ((), *((one,) for one in Quantization))
    drafts, loras = (None, "draft/model"), ((), LORAS)
    for backend, (tensor, pipeline), quantization, draft, lora, caching in itertools.product(
        Backend, parallel, quantizations, drafts, loras, (True, False)
    ):
        yield {
            "backend": backend,
            "tensor_parallel": tensor,
            "pipeline_parallel": pipeline,
            "quantization": quantization,
            "draft_model": draft,
            "loras": lora,
            "prefix_caching": caching,
        }


def contradicts(given: dict[str, Any]) -> bool:
    """By the engines' own tables."""
    draft, int4 = given["draft_model"] is not None, Quantization.INT4 in given["quantization"]
    return (
        (draft and given["pipeline_parallel"] > 1)
        or (draft and bool(given["loras"]))
        or (int4 and given["backend"] is Backend.TENSORRTLLM)
    )


COMBINATIONS = list(combinations())
POSSIBLE = [Options(name="llm", model="org/model", **given) for given in COMBINATIONS if not contradicts(given)]


def options(**given: Any) -> Options:
    return Options(**{"name": "llm", "backend": Backend.VLLM, "model": "org/model", **given})


def configs(files: rendering.Files) -> dict[str, Any]:
    """Each model's configuration as Triton's protobuf has it; unknown fields are errors."""
    found = {path.parts[0]: text for path, text in files.items() if path.name == "config.pbtxt"}
    return {name: text_format.Parse(text, model_config_pb2.ModelConfig()) for name, text in found.items()}


def parameters(config: Any) -> dict[str, str]:
    return {name: value.string_value for name, value in config.parameters.items()}


def test_every_combination_is_had_or_refused() -> None:
    for given in COMBINATIONS:
        if contradicts(given):
            with pytest.raises(Refused):
                options(**given)
    assert len(POSSIBLE) == len(set(map(str, POSSIBLE))) > 100


def test_every_configuration_is_tritons() -> None:
    for possible in POSSIBLE:
        found = configs(rendering.files(possible))
        assert set(found) == set(possible.names)
        for name, config in found.items():
            assert config.name == name
            assert config.max_batch_size == 0
            (group,) = config.instance_group
            assert group.count == 1
            is_engine = name == possible.engine_name
            assert config.backend == ("vllm" if is_engine and possible.backend is Backend.VLLM else "python")
            kind = group.KIND_MODEL if config.backend == "vllm" else group.KIND_CPU
            assert group.kind == kind
            for tensor in (*config.input, *config.output):
                kind_name = model_config_pb2.DataType.Name(tensor.data_type)
                assert kind_name == f"TYPE_{DOCUMENTED_TENSORS[tensor.name]}"


def test_every_engine_takes_its_arguments() -> None:
    for possible in POSSIBLE:
        files = rendering.files(possible)
        version = PurePosixPath(possible.engine_name, "1")
        if possible.backend is Backend.VLLM:
            raw = json.loads(files[version / "model.json"])
            documented(raw, DOCUMENTED_VLLM)
            vllm = msgspec.convert(raw, VllmArguments)
            assert vllm.tensor_parallel_size * vllm.pipeline_parallel_size == possible.gpus
        else:
            raw = yaml.safe_load(files[version / "model.yaml"])
            documented(raw, DOCUMENTED_TENSORRTLLM)
            llm = msgspec.convert(raw, TensorRtLlmArguments)
            assert llm.tensor_parallel_size * llm.pipeline_parallel_size == possible.gpus


def documented(raw: dict[str, Any], names: dict[str, str]) -> None:
    assert raw.keys() <= set(names[""].split())
    for key, inner in raw.items():
        if isinstance(inner, dict):
            assert inner.keys() <= set(names[key].split())


def test_the_gateways_strict_check_takes_every_section(tmp_path: Path) -> None:
    base = yaml.safe_load("redis: {url: 'redis://127.0.0.1:6379'}\nkeys: {hash_secret: a secret for tests only}")
    path = tmp_path / "gateway.yaml"
    for possible in POSSIBLE[::7]:
        path.write_text(yaml.safe_dump(base | yaml.safe_load(gateway_section.section(possible, SERVING))))
        loaded = gateway_file.load(path, {})
        served = {possible.name, *(possible.adapted_name(lora) for lora in possible.loras)}
        assert {pool.model for pool in loaded.pools.values()} == served == set(loaded.models)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"quantization": (Quantization.AWQ, Quantization.FP8)}, "awq and fp8 exclude each other"),
        ({"quantization": (Quantization.INT4,), "backend": Backend.TENSORRTLLM}, "awq or gptq"),
        ({"draft_model": "d", "pipeline_parallel": 2}, "pipeline parallelism"),
        ({"draft_model": "d", "pipeline_parallel": 2, "backend": Backend.TENSORRTLLM}, "pipeline parallelism"),
        ({"draft_model": "d", "loras": LORAS}, "exclude each other"),
        ({"draft_tokens": 3}, "need a draft model"),
        ({"draft_model": "d", "draft_tokens": 0}, "1 to 64"),
        ({"lora_rank": 16}, "needs adapters"),
        ({"loras": LORAS, "lora_rank": 7}, "8, 16, 32"),
        ({"loras": (LORAS[0], LORAS[0])}, "the same name"),
        ({"loras": (Lora("engine", "/x"),), "backend": Backend.TENSORRTLLM}, "or the engine's"),
        ({"gpu_ids": (0, 1)}, "2 GPUs are given"),
        ({"gpu_ids": (0, 0), "tensor_parallel": 2}, "once"),
        ({"gpu_ids": (0, -1), "tensor_parallel": 2}, "once"),
        ({"gpu_ids": (0,), "backend": Backend.TENSORRTLLM}, "CUDA_VISIBLE_DEVICES"),
        ({"tensor_parallel": 0}, "at least"),
        ({"tensor_parallel": 1024, "pipeline_parallel": 2}, "more than"),
        ({"context_window": 0}, "1 token"),
        ({"gpu_memory": 1.5}, "share"),
        ({"gpu_memory": float("nan")}, "share"),
        ({"model": "a\tb"}, "path"),
        ({"model": ""}, "path"),
        ({"loras": (Lora("a", "/with\nnewline"),)}, "path"),
        ({"name": "../up"}, "no name"),
        ({"name": "a/b"}, "no name"),
        ({"name": ".hidden"}, "no name"),
        ({"name": "dots.in.it"}, "no name"),
        ({"name": "n\n"}, "no name"),
        ({"name": "x" * 64}, "no name"),
        ({"name": "x" * 60, "loras": LORAS}, "no name"),
    ],
)
def test_contradictions_and_names_are_refused_in_words(given: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=message):
        options(**given)


def test_gpus_are_chosen_by_number() -> None:
    config = configs(rendering.files(options(tensor_parallel=2, pipeline_parallel=2, gpu_ids=(3, 1, 2, 0))))["llm"]
    assert parameters(config)["GPU_DEVICE_IDS"] == "3,1,2,0"
    assert "GPU_DEVICE_IDS" not in parameters(configs(rendering.files(options()))["llm"])


def test_texts_are_quoted_wherever_they_stand() -> None:
    path = '/a"b\\c/é'
    made = rendering.files(options(backend=Backend.TENSORRTLLM, model=path, loras=[Lora("x", path)]))
    assert parameters(configs(made)["llm-x"])["lora_path"] == path
    raw = yaml.safe_load(made[PurePosixPath("llm-engine/1/model.yaml")])
    assert (raw["model"], raw["lora_config"]["lora_dir"]) == (path, [path])


@pytest.fixture
def made() -> rendering.Files:
    return rendering.files(options(loras=LORAS))


def test_what_is_there_is_not_overwritten(tmp_path: Path, made: rendering.Files) -> None:
    (tmp_path / "llm-law").mkdir()
    (tmp_path / "llm-law" / "mine").touch()
    with pytest.raises(repository.Taken, match="llm-law"):
        repository.write(made, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["llm-law"]
    repository.write(made, tmp_path, replace=True)
    assert sorted(os.listdir(tmp_path)) == ["llm", "llm-alpaca", "llm-law"]
    assert not (tmp_path / "llm-law" / "mine").exists()


def test_a_link_is_replaced_and_not_followed(tmp_path: Path, made: rendering.Files) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "llm").symlink_to(elsewhere)
    with pytest.raises(repository.Taken):
        repository.write(made, tmp_path / "models")
    repository.write(made, tmp_path / "models", replace=True)
    assert list(elsewhere.iterdir()) == []


def test_a_failure_leaves_what_was_there(
    tmp_path: Path, made: rendering.Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the moves fails."""
    for name in ("llm", "llm-law"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").touch()
    real = Path.rename
    moves = 5  # two old ones out, three new ones in
    for failing in range(moves):
        seen = itertools.count()

        def rename(path: Path, target: Path, failing: int = failing, seen: Iterator[int] = seen) -> Path:
            if next(seen) == failing:
                raise OSError(28, "No space left on device")
            return real(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", rename)
            with pytest.raises(OSError, match="No space"):
                repository.write(made, tmp_path, replace=True)
        left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
        assert left == ["llm", "llm-law", "llm-law/mine", "llm/mine"]


def command(tmp_path: Path, *arguments: str) -> int:
    where = ("--repository", str(tmp_path / "models"))
    return main(["models", "new", *where, "--model", "org/model", "--backend", "vllm", *arguments])


def test_the_command_prints_yaml_and_nothing_else_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path, "llm", "--endpoint", "tritons.example:9000") == 0
    out, err = capsys.readouterr()
    cluster = yaml.safe_load(out)["pools"]["llm"]["clusters"]["tritons"]
    assert cluster == {"endpoints": ["tritons.example:9000"], "metrics": ["tritons.example:9002"]}
    assert yaml.safe_load(out)["models"]["llm"]["operations"] == ["completions"]
    assert f"wrote {tmp_path / 'models' / 'llm'}" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("llm", "--quantization", "awq", "--quantization", "fp8"), "exclude each other"),
        (("../llm",), "no name"),
        (("llm", "--chat-template", "chatml"), "--tokenizer"),
        (("llm", "--endpoint", "a:1", "--endpoint", "a:1"), "twice"),
    ],
)
def test_the_command_refuses_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert command(tmp_path, *arguments) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_how_to_replace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path, "llm") == 0
    assert command(tmp_path, "llm") == 1
    assert "--force" in capsys.readouterr().err
    assert command(tmp_path, "llm", "--force", "--no-prefix-caching") == 0
    assert not json.loads((tmp_path / "models/llm/1/model.json").read_text())["enable_prefix_caching"]


def test_an_installed_wheel_has_the_templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pyproject.toml puts them there."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    installed = tmp_path / "site-packages"
    for source, target in wheel["force-include"].items():
        (installed / target).parent.mkdir(parents=True)
        (installed / target).symlink_to(ROOT / source)
    monkeypatch.setattr(rendering, "_PACKAGE", installed / "extproc")
    assert rendering.folder() == installed / "extproc" / "templates"
    assert rendering.files(options(loras=LORAS))


PAGE = (ROOT / "docs" / "model-templates.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_pages_example(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program, *arguments = shlex.split(block("console").removeprefix("$ "))
    assert (program, main(arguments)) == ("extproc", 0)
    assert capsys.readouterr().out == block("yaml")
    made = tmp_path / "model_repository"
    files = sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file())
    assert files == block("text").splitlines()


def test_the_page_says_for_which_release_and_names_every_quantization() -> None:
    assert f"Triton {rendering.RELEASE}" in PAGE
    for quantization in Quantization:
        assert f"`--quantization {quantization}`" in PAGE
