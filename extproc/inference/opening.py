"""From the `encoder` section to a running encoder. What a backend needs is imported only when it is chosen."""

from __future__ import annotations

from typing import Protocol

from extproc.clock import Clock
from extproc.config.encoder import Encoder as Settings
from extproc.config.encoder import EncoderBackend
from extproc.inference.interface import Encoder, PairVerifier
from extproc.telemetry.encoder_metrics import EncoderMetrics


class RunningEncoder(Encoder, Protocol):
    """An encoder with a beginning and an end."""

    async def ready(self) -> None:
        """Wait until it can encode. Raises EncoderError when it never will."""

    async def close(self) -> None:
        """Fail what waits and let go of everything."""


class RunningVerifier(PairVerifier, Protocol):
    """A verifier with a beginning and an end."""

    async def ready(self) -> None:
        """Wait until it can judge. Raises DependencyError when it never will."""

    async def close(self) -> None:
        """Let what is under way end."""


def open_verifier(settings: Settings) -> RunningVerifier:
    """In this process, whatever the encoder's backend; loading begins at once. On a running event loop."""
    from extproc.inference.verifier.files import default_folder
    from extproc.inference.verifier.local import LocalVerifier

    return LocalVerifier(settings.verifier_dir or default_folder(), settings.device, settings.threads)


def open_encoder(settings: Settings, metrics: EncoderMetrics, clock: Clock) -> RunningEncoder | None:
    """Loading begins at once, in the background; None when the section says `off`. On a running event loop."""
    if settings.backend is EncoderBackend.OFF:
        return None
    if settings.backend is EncoderBackend.TRITON:
        from extproc.inference.triton import TritonEncoder

        return TritonEncoder(settings, metrics, clock)
    from extproc.inference.local import LocalEncoder

    return LocalEncoder(settings, metrics, clock)
