"""Whether a text is about a topic that is given by example sentences. Must not know where embeddings come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct


class Topic(Struct, frozen=True):
    """`examples` are embeddings of length one, little-endian float32 (as `Encoding.embedding`)."""

    examples: tuple[bytes, ...]
    similarity: float


def topic_of(embeddings: Sequence[bytes], topics: Mapping[str, Topic]) -> str | None:
    """The first topic that one of these embeddings is similar enough to."""
    if not embeddings:
        return None
    texts = _matrix(embeddings)
    for name, topic in topics.items():
        if float((texts @ _matrix(topic.examples).T).max()) >= topic.similarity:
            return name
    return None


def _matrix(embeddings: Sequence[bytes]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.frombuffer(b"".join(embeddings), dtype="<f4").reshape(len(embeddings), -1)
