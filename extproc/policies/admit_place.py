"""Where one exchange stood in the line before its pool. The memory that `admit` has of an exchange.

Must not know: any policy but `admit`.
"""

from __future__ import annotations

from msgspec import Struct

from extproc.admission import Priority


class Place(Struct):
    """`ticket` is empty where there is no line. `position` is 0 for who had not to wait, `waited_s` its wait so far."""

    priority: Priority
    ticket: str = ""
    position: int = 0
    waited_s: float = 0.0
