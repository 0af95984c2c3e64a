"""A hyperscan database from its expressions: compiled, which takes seconds for many, or taken from where it was kept.

Pure: where databases are kept, and how, is `Keep`'s business (`stores/databases.py`).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence

import hyperscan

Keep = Callable[[str, Callable[[], bytes]], bytes]
"""Gives what is kept under a name (of letters and digits), or makes it and keeps it. Raises only what making raises."""


def database(expressions: Sequence[bytes], flags: Sequence[int], keep: Keep | None = None) -> hyperscan.Database:
    """Matches report an expression's number. `flags`: one for each expression. Raises hyperscan.error."""

    def make() -> hyperscan.Database:
        made = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        numbers = list(range(len(expressions)))
        made.compile(expressions=list(expressions), ids=numbers, elements=len(numbers), flags=list(flags))
        return made

    if keep is None:
        return make()
    kept = keep(_name(expressions, flags), lambda: hyperscan.dumpb(make()))
    try:
        return hyperscan.loadb(kept, hyperscan.HS_MODE_BLOCK)
    except hyperscan.error:
        return make()


def _name(expressions: Sequence[bytes], flags: Sequence[int]) -> str:
    """The same for what compiles to the same: expressions, flags, library, and the processor it compiles for."""
    digest = hashlib.sha256(_compiler())
    for expression, flag in zip(expressions, flags, strict=True):
        digest.update(b"%d %d " % (flag, len(expression)) + expression)
    return digest.hexdigest()


@functools.cache
def _compiler() -> bytes:
    """A database tells in its head which version made it, and for which processor."""
    smallest = database([b"a"], [0])
    return repr((smallest.info(), hyperscan.dumpb(smallest)[:_HEAD_BYTES])).encode()


_HEAD_BYTES = 24  # magic, version, length, platform
