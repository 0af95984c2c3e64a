"""Tables as the commands print them."""

from collections.abc import Sequence
from typing import TextIO


def table(rows: Sequence[Sequence[str]], text_columns: int, out: TextIO) -> None:
    """Columns as wide as their widest cell; the first `text_columns` to the left, numbers after them to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if place < text_columns else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        out.write("  ".join(cells).rstrip() + "\n")
