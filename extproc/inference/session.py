"""The graph in ONNX Runtime: opening it where it was asked for, and running a batch. The only importer of onnxruntime.

fp32 throughout: quantised to eight bits, a text's result would depend on its batch-mates.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from extproc.config.encoder import EncoderDevice
from extproc.inference.failure import EncoderError, Reason
from extproc.inference.outputs import ENTITY_LABELS, Array, Labels, Output
from extproc.inference.padding import padded
from extproc.inference.tokens import Tokens

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_log = logging.getLogger(__name__)


class Session:
    """One loaded graph. Raises EncoderError (`unavailable`) when it can't be loaded on the device asked for."""

    def __init__(self, model: Path, device: EncoderDevice, threads: int) -> None:
        self._session = open_session(model, device, threads)
        there = {output.name for output in self._session.get_outputs()}
        self._outputs = [output for output in Output if output in there]
        if Output.EMBEDDING not in there:
            raise EncoderError(Reason.UNAVAILABLE, f"{model} has no output named {Output.EMBEDDING}")
        names = self._session.get_modelmeta().custom_metadata_map.get(ENTITY_LABELS)
        self.labels = Labels(json.loads(names)) if names is not None else None

    @property
    def provider(self) -> str:
        """Where it really runs: `cuda` or `cpu`."""
        return "cuda" if self._session.get_providers()[0] == _CUDA else "cpu"

    @property
    def outputs(self) -> Sequence[Output]:
        """Those that the graph has, of those we know."""
        return self._outputs

    def run(self, batch: Sequence[Tokens]) -> Mapping[Output, Array]:
        """The outputs by name. ONNX Runtime lets go of the GIL while it computes."""
        return dict(zip(self._outputs, self._session.run(self._outputs, padded(batch)), strict=True))


def open_session(model: Path, device: EncoderDevice, threads: int) -> Any:
    """Raises EncoderError (`unavailable`) when it can't be loaded on the device asked for."""
    import onnxruntime  # 0.2 s, and only a worker that has an encoder needs it

    offered = onnxruntime.get_available_providers()
    try_cuda = device is not EncoderDevice.CPU and _CUDA in offered
    if try_cuda:
        onnxruntime.preload_dlls()  # CUDA's libraries, where they came as Python packages
    # Its default multiplies with ten bits of mantissa, and an embedding would depend on where it was computed.
    providers = [(_CUDA, {"use_tf32": "0"}), _CPU] if try_cuda else [_CPU]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the cores are not ours alone
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=providers)
    except Exception as error:  # its exceptions share no base class
        raise EncoderError(Reason.UNAVAILABLE, f"{model} could not be loaded: {error}") from error
    got = session.get_providers()[0]
    if device is EncoderDevice.CUDA and got != _CUDA:
        raise EncoderError(Reason.UNAVAILABLE, f"CUDA is configured, but ONNX Runtime only has {', '.join(offered)}")
    if try_cuda and got != _CUDA:
        _log.warning("CUDA is installed but does not work here; the encoder runs on the CPU")
    return session
