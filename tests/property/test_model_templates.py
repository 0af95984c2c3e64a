"""Whatever is asked of `extproc models new`: it is refused in words, or everything that it makes is sound."""

import json
import string
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import yaml
from google.protobuf import text_format
from hypothesis import event, given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from extproc.config.address import TcpAddress
from extproc.config.models import Model
from extproc.config.pools import Pool
from extproc.model_templates import gateway_section, rendering
from extproc.model_templates.engines import TensorRtLlmArguments, VllmArguments
from extproc.model_templates.gateway_section import Serving
from extproc.model_templates.options import Backend, Lora, Options, Quantization, Refused

good_names = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=24).map(lambda text: f"m{text}")
good_places = st.sampled_from(["org/model", "/models/m", "/with space/é", "/q'uo\"te\\"])
good = st.fixed_dictionaries(
    {"name": good_names, "backend": st.sampled_from(Backend), "model": good_places},
    optional={
        "tensor_parallel": st.integers(1, 8),
        "pipeline_parallel": st.sampled_from([1, 1, 4]),
        "context_window": st.integers(1, 1 << 20),
        "gpu_memory": st.floats(0.01, 1),
        "prefix_caching": st.booleans(),
        "quantization": st.lists(st.sampled_from(Quantization), max_size=1),
        "draft_model": st.none() | good_places,
        "loras": st.lists(st.builds(Lora, good_names, good_places), max_size=3),
        "http_port": st.integers(1, 65533),
    },
)
"""Each option by itself is in order."""

few = st.integers(-1, 9)
names = st.text(max_size=70) | st.sampled_from(["..", "a/../b", "/etc", "con\0", "on", "1", "a\n"])
places = st.text(max_size=60)
wild = st.fixed_dictionaries(
    {},
    optional={
        "name": names,
        "model": places,
        "tensor_parallel": few,
        "pipeline_parallel": few,
        "gpu_ids": st.integers(1, 8).map(lambda count: list(range(count))) | st.lists(few, max_size=4),
        "context_window": few,
        "gpu_memory": st.floats(),
        "quantization": st.lists(st.sampled_from(Quantization), max_size=2),
        "draft_model": places,
        "draft_tokens": few,
        "loras": st.lists(st.builds(Lora, names, places), max_size=3),
        "lora_rank": st.sampled_from([8, 16, 17]),
    },
)


@given(good, st.just({}) | wild)
def test_refused_or_sound(fields: dict[str, Any], more: dict[str, Any]) -> None:
    try:
        options = Options(**fields | more)
    except Refused:
        event("refused")
        return
    event("made")
    files = rendering.files(options)
    root = Path("/repository")
    assert all((root / path).resolve().is_relative_to(root) for path in files)
    assert {path.parts[0] for path in files} == set(options.names)
    for path, text in files.items():
        check_file(options, path, text)
    section = yaml.safe_load(gateway_section.section(options, Serving([TcpAddress("::1", options.http_port)])))
    assert section["models"].keys() == section["pools"].keys()
    for name, entry in section["models"].items():
        assert Model.model_validate_json(json.dumps(entry)).pool == name
    for entry in section["pools"].values():
        assert Pool.model_validate_json(json.dumps(entry)).model in options.names


def check_file(options: Options, path: PurePosixPath, text: str) -> None:
    if path.name == "config.pbtxt":
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        assert config.name == path.parts[0]
        devices = config.parameters["GPU_DEVICE_IDS"].string_value
        assert not devices or len(set(devices.split(","))) == options.gpus
    elif path.name == "model.json":
        vllm = msgspec.convert(json.loads(text), VllmArguments)
        assert vllm.model == options.model
        assert vllm.tensor_parallel_size * vllm.pipeline_parallel_size == options.gpus
    elif path.name == "model.yaml":
        llm = msgspec.convert(yaml.safe_load(text), TensorRtLlmArguments)
        assert llm.model == options.model
        assert llm.tensor_parallel_size * llm.pipeline_parallel_size == options.gpus
