"""The files of a new model: the templates of triton_models/templates filled from options.

Must not know: where the files go.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import jinja2
import msgspec
import yaml

from extproc.model_templates.engines import tensorrtllm_arguments, vllm_arguments
from extproc.model_templates.options import Backend, Options

RELEASE = "26.09"
"""The release of Triton whose documentation the templates follow."""

Files = Mapping[PurePosixPath, str]
"""Texts by their path in the model repository."""

_PACKAGE = Path(__file__).resolve().parents[1]


def folder() -> Path:
    """The templates: beside the package in a checkout, within it where it is installed."""
    checkout = _PACKAGE.parent / "triton_models" / "templates"
    return checkout if checkout.is_dir() else _PACKAGE / "templates"


def files(options: Options) -> Files:
    return dict(_files(options))


def _files(options: Options) -> Iterator[tuple[PurePosixPath, str]]:
    engine = PurePosixPath(options.engine_name)
    common = {"release": RELEASE, "backend": options.backend, "gpus": options.gpus, "engine": options.engine_name}
    common |= {"server": f"127.0.0.1:{options.http_port}"}
    template = "vllm.pbtxt" if options.backend is Backend.VLLM else "tensorrtllm.pbtxt"
    values = common | {"name": options.engine_name, "gpu_ids": options.gpu_ids}
    yield engine / "config.pbtxt", _render(template, values)
    if options.backend is Backend.VLLM:
        yield engine / "1" / "model.json", _json(msgspec.to_builtins(vllm_arguments(options)))
        if options.loras:
            yield engine / "1" / "multi_lora.json", _json({lora.name: lora.path for lora in options.loras})
    else:
        yield engine / "1" / "model.yaml", _yaml(msgspec.to_builtins(tensorrtllm_arguments(options)))
        yield from _front(options.name, common)
    for number, lora in enumerate(options.loras, 1):
        adapter = {"name": lora.name, "path": lora.path, "id": number}
        yield from _front(options.adapted_name(lora), common | {"lora": adapter})


def _front(name: str, values: Mapping[str, Any]) -> Iterator[tuple[PurePosixPath, str]]:
    place = PurePosixPath(name)
    yield place / "config.pbtxt", _render("front.pbtxt", {**values, "name": name})
    yield place / "1" / "model.py", (folder() / "front.py").read_text(encoding="utf-8")


def _render(template: str, values: Mapping[str, Any]) -> str:
    return _environment(folder()).get_template(template).render({"lora": None, **values})


@functools.cache
def _environment(templates: Path) -> jinja2.Environment:
    environment = jinja2.Environment(  # noqa: S701 (what is rendered is no HTML)
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = _quoted
    return environment


def _quoted(text: str) -> str:
    """As protobuf's text format quotes: like JSON, for text without control characters."""
    return json.dumps(str(text), ensure_ascii=False)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _yaml(value: Any) -> str:
    head = f"# Made by `extproc models new` for Triton {RELEASE}: arguments of tensorrt_llm.LLM, and triton_config.\n"
    return head + yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
