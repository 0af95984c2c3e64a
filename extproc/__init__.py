"""extproc: an AI gateway data plane. Envoy moves the bytes; this decides what happens to a prompt."""

__version__ = "0.1.0"
