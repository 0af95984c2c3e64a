"""What a client can have a model do. Named once, for the configuration, the dialects and the labels of metrics."""

from __future__ import annotations

from enum import StrEnum


class Operation(StrEnum):
    """The API through which a model is asked; the values are the `operations` a model lists in gateway.yaml."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    INFER = "infer"
