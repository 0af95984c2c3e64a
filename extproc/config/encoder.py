"""The `encoder` section: where the model that several policies share runs, and how much may wait for it.

Must not know: what is done with its results.
"""

import enum
import pathlib
from typing import Annotated

import pydantic

from extproc.config.address import HostPort, TcpAddress
from extproc.config.section import Section


class EncoderBackend(enum.StrEnum):
    """`local`: in each worker, by ONNX Runtime. `triton`: on a Triton server. `off`: nowhere."""

    LOCAL = "local"
    TRITON = "triton"
    OFF = "off"


class EncoderDevice(enum.StrEnum):
    """What a local encoder computes on."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def _beside_config(path: pathlib.Path, info: pydantic.ValidationInfo) -> pathlib.Path:
    """A relative path is relative to the file that names it, wherever the process was started."""
    base: pathlib.Path | None = (info.context or {}).get("base")
    return path.expanduser() if base is None else base / path.expanduser()


class TritonEncoder(Section):
    """The encoder on Triton: the graph itself, token ids in (`triton_models/encoder`)."""

    address: HostPort = TcpAddress("127.0.0.1", 8001)
    """Triton's gRPC port."""

    model: Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")] = "encoder"
    """The model's name there."""

    max_batch_texts: Annotated[int, pydantic.Field(ge=1, le=1024)] = 32
    """Most texts in one request: the model's `max_batch_size`."""


class Encoder(Section):
    """The small model behind injection scores, names in text, semantic caching and complexity. It is loaded only
    when a policy that is on needs it."""

    backend: EncoderBackend = EncoderBackend.LOCAL
    """`local`: in each worker, by ONNX Runtime; `triton`: on a Triton server; `off`: nowhere, and no policy may need
    it."""

    model_dir: Annotated[pathlib.Path, pydantic.AfterValidator(_beside_config)] | None = None
    """The directory with `model.onnx` (for `local`) and `tokenizer.json`; without one, what `extproc models build`
    made."""

    verifier_dir: Annotated[pathlib.Path, pydantic.AfterValidator(_beside_config)] | None = None
    """The directory with the pair verifier of the semantic cache (`verifier.onnx`, `tokenizer.json`), which runs in
    each worker whatever the backend is; without one, what `extproc models build` made."""

    device: EncoderDevice = EncoderDevice.AUTO
    """For `local`. `auto`: CUDA where it works, else the CPU, with a warning where it was installed and did not work;
    `cuda`: CUDA or no start; `cpu`: the CPU even where there is CUDA."""

    threads: Annotated[int, pydantic.Field(ge=1, le=256)] = 1
    """For `local`: processor cores that one pass uses, in each worker."""

    max_waiting: Annotated[int, pydantic.Field(ge=1, le=100_000)] = 256
    """Most texts that wait or are under way, in each worker; further ones fail at once as overload."""

    max_batch_tokens: Annotated[int, pydantic.Field(ge=512, le=1 << 20)] | None = None
    """For `local`: most tokens, padding included, in one pass; without it 512 on a CPU and 16384 on CUDA."""

    triton: TritonEncoder = TritonEncoder()
    """For `triton`: where it is."""
