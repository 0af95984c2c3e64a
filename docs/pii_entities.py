"""Writes the table of entities in pii.md from the patterns; a test asserts that it is up to date.

Run `python docs/pii_entities.py` after changing a pattern.
"""

import pathlib
from collections import defaultdict

from extproc.detection.patterns import REGIONS
from extproc.detection.patterns.pattern import Pattern

PAGE = pathlib.Path(__file__).parent / "pii.md"
BEGIN, END = "<!-- entities: begin -->\n", "<!-- entities: end -->\n"


def table() -> str:
    rows: dict[tuple[str, str], list[Pattern]] = defaultdict(list)
    for region, patterns in REGIONS.items():
        for pattern in patterns:
            rows[region, pattern.entity].append(pattern)
    lines = ["| region | entity | checks | alone | with a word |", "|---|---|---|---|---|"]
    for (region, entity), patterns in rows.items():
        checks = (
            ", ".join(dict.fromkeys(pattern.check.name for pattern in patterns if pattern.check)) or "structure only"
        )
        alone, backed = max(pattern.alone for pattern in patterns), max(pattern.backed for pattern in patterns)
        lines.append(f"| {region} | `{entity}` | {checks} | {alone:.2f} | {backed:.2f} |")
    return "\n".join(lines) + "\n"


def page(current: str) -> str:
    """The page with its table replaced."""
    before, rest = current.split(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
