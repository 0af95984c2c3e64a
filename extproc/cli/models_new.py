"""`extproc models new`: an entry of a Triton model repository, and what gateway.yaml says of it."""

import argparse
import pathlib
import sys
from typing import TYPE_CHECKING

from extproc.cli.arguments import CommandFailed

if TYPE_CHECKING:
    from extproc.cli.arguments import Commands
    from extproc.config.address import TcpAddress
    from extproc.model_templates.gateway_section import Serving
    from extproc.model_templates.options import Options

_BACKENDS = ("vllm", "tensorrtllm")
_QUANTIZATIONS = ("fp8", "awq", "gptq", "int4")
_CHAT_TEMPLATES = ("chatml", "llama3")
_LLM_API = "/app/all_models/llmapi/tensorrt_llm/1"
_DEFAULT_ENDPOINT = "127.0.0.1:8000"
_HIGHEST_HTTP_PORT = 65533  # the metrics are two above


def add_command(actions: "Commands") -> None:
    new = actions.add_parser(
        "new",
        help="make a model for Triton's vLLM or TensorRT-LLM backend; prints what gateway.yaml says of it",
        description="Writes a model into a Triton model repository, and prints the sections of gateway.yaml for it.",
    )
    new.add_argument("name", metavar="NAME", help="the model's name on Triton, and for clients")
    new.add_argument("--backend", choices=_BACKENDS, required=True)
    new.add_argument("--model", required=True, help="a Hugging Face name, or a directory on the server")
    new.add_argument(
        "--repository",
        type=pathlib.Path,
        default=pathlib.Path("model_repository"),
        metavar="DIR",
        help="the model repository (default: %(default)s)",
    )
    new.add_argument("--force", action="store_true", help="replace what is there by that name, as a whole")
    _add_engine(new)
    _add_serving(new)
    new.set_defaults(run=_new)


def _add_engine(new: argparse.ArgumentParser) -> None:
    engine = new.add_argument_group("the engine")
    engine.add_argument("--tensor-parallel", type=int, default=1, metavar="N", help="GPUs that share each layer")
    engine.add_argument("--pipeline-parallel", type=int, default=1, metavar="N", help="GPUs that share out the layers")
    engine.add_argument("--gpu-ids", type=_numbers, default=(), metavar="0,1", help="these GPUs (vllm)")
    engine.add_argument(
        "--quantization",
        action="append",
        default=[],
        choices=_QUANTIZATIONS,
        help="how the checkpoint keeps its weights (fp8: vLLM also makes it so)",
    )
    engine.add_argument("--draft-model", metavar="MODEL", help="speculative decoding: the model that drafts")
    engine.add_argument("--draft-tokens", type=int, metavar="N", help="tokens of a draft (default: 3)")
    engine.add_argument(
        "--prefix-caching",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep the KV cache of what prompts have in common (default: yes)",
    )
    engine.add_argument(
        "--lora", action="append", default=[], type=_lora, metavar="NAME=DIR", help="an adapter; can be repeated"
    )
    engine.add_argument("--lora-rank", type=int, metavar="N", help="the highest rank of an adapter (default: 16)")
    engine.add_argument(
        "--context-window", type=int, default=8192, metavar="TOKENS", help="prompt and answer (default: %(default)s)"
    )
    engine.add_argument(
        "--gpu-memory",
        type=float,
        default=0.9,
        metavar="SHARE",
        help="vllm: of each GPU's memory; tensorrtllm: of what the weights leave (default: %(default)s)",
    )


def _add_serving(new: argparse.ArgumentParser) -> None:
    serving = new.add_argument_group("the gateway")
    serving.add_argument(
        "--endpoint",
        action="append",
        type=_endpoint,
        metavar="HOST:PORT",
        help=f"a Triton's HTTP port, its metrics two above; can be repeated (default: {_DEFAULT_ENDPOINT})",
    )
    serving.add_argument("--tokenizer", type=_file, metavar="FILE", help="the model's tokenizer.json")
    serving.add_argument(
        "--chat-template",
        type=_chat_template,
        metavar="TEMPLATE",
        help=f"{', '.join(_CHAT_TEMPLATES)} or a Jinja file; needs --tokenizer. Without one: completions only",
    )


def _new(arguments: argparse.Namespace) -> int:
    from extproc.model_templates import gateway_section, rendering, repository
    from extproc.model_templates.options import Refused

    try:
        serving = _serving(arguments)
        options = _options(arguments, serving.endpoints[0].port)
        repository.write(rendering.files(options), arguments.repository, replace=arguments.force)
    except Refused as error:
        raise CommandFailed(str(error)) from error
    except repository.Taken as error:
        raise CommandFailed(f"{error}: --force replaces it") from error
    except OSError as error:
        raise CommandFailed(f"can't write to {arguments.repository}: {error.strerror}") from error
    for name in options.names:
        print(f"wrote {arguments.repository / name}", file=sys.stderr)
    print(_advice(options, arguments.repository), file=sys.stderr)
    print(gateway_section.section(options, serving), end="")
    return 0


def _options(arguments: argparse.Namespace, http_port: int) -> "Options":
    from extproc.model_templates.options import Backend, Lora, Options, Quantization

    return Options(
        name=arguments.name,
        backend=Backend(arguments.backend),
        model=arguments.model,
        tensor_parallel=arguments.tensor_parallel,
        pipeline_parallel=arguments.pipeline_parallel,
        gpu_ids=arguments.gpu_ids,
        context_window=arguments.context_window,
        gpu_memory=arguments.gpu_memory,
        prefix_caching=arguments.prefix_caching,
        quantization=[Quantization(name) for name in arguments.quantization],
        draft_model=arguments.draft_model,
        draft_tokens=arguments.draft_tokens,
        loras=[Lora(name, path) for name, path in arguments.lora],
        lora_rank=arguments.lora_rank,
        http_port=http_port,
    )


def _serving(arguments: argparse.Namespace) -> "Serving":
    from extproc.model_templates.gateway_section import Serving

    if arguments.chat_template is not None and arguments.tokenizer is None:
        raise CommandFailed("a chat template needs --tokenizer: the prompts that it makes are counted")
    endpoints = arguments.endpoint or [_endpoint(_DEFAULT_ENDPOINT)]
    if len(set(endpoints)) < len(endpoints):
        raise CommandFailed("an endpoint is given twice")
    return Serving(endpoints, arguments.tokenizer, arguments.chat_template)


def _advice(options: "Options", repository: pathlib.Path) -> str:
    from extproc.model_templates.options import Backend
    from extproc.model_templates.rendering import RELEASE

    load = " ".join(f"--load-model={name}" for name in options.names)
    steps = [f"written for Triton {RELEASE}; load it with {load}"]
    if options.backend is Backend.TENSORRTLLM:
        place = repository / options.engine_name / "1"
        steps.append(f"in its container: cp {_LLM_API}/model.py {_LLM_API}/helpers.py {place}/")
    return "\n".join([*steps, "merge this into gateway.yaml:"])


def _numbers(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError("numbers with commas between: 0,1")
    return [int(part) for part in parts]


def _lora(text: str) -> tuple[str, str]:
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        raise argparse.ArgumentTypeError("NAME=DIR")
    return name, path


def _endpoint(text: str) -> "TcpAddress":
    from extproc.config.address import parse_tcp

    try:
        address = parse_tcp(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if address.port > _HIGHEST_HTTP_PORT:
        raise argparse.ArgumentTypeError(f"a port up to {_HIGHEST_HTTP_PORT}: the metrics are two above")
    return address


def _file(text: str) -> pathlib.Path:
    path = pathlib.Path(text).absolute()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return path


def _chat_template(text: str) -> str | pathlib.Path:
    return text if text in _CHAT_TEMPLATES else _file(text)
