"""How well the patterns find what they are for: `python -m tests.benchmarks.pii_quality [--rows]`.

Two views. *Each entity alone*, as the cases of one recogniser are written: only that entity is looked for, and
everything counts however doubtful (threshold 0). *All together* at the default threshold, as a policy runs. A span is
right if entity and extent are exactly as labelled. `--rows` prints every row that isn't right.
"""

from __future__ import annotations

import argparse
import functools
import json
import pathlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from extproc.detection.scanner import PatternScanner, Selection, selected

SAMPLES = pathlib.Path(__file__).parents[3] / "shared" / "data"
OWN = pathlib.Path(__file__).parents[1] / "data" / "pii_sentences.jsonl"

Place = tuple[int, int, str]


@dataclass(frozen=True)
class Row:
    """`complete`: what isn't in `places` isn't there; otherwise only what is listed can be judged."""

    text: str
    places: frozenset[Place]
    complete: bool = True
    entity: str = ""


@dataclass
class Count:
    right: int = 0
    wrong: int = 0
    missed: int = 0

    @property
    def precision(self) -> float:
        return self.right / (self.right + self.wrong) if self.right + self.wrong else 1.0

    @property
    def recall(self) -> float:
        return self.right / (self.right + self.missed) if self.right + self.missed else 1.0

    @property
    def f1(self) -> float:
        return 2 * self.right / (2 * self.right + self.wrong + self.missed) if self.right else 0.0


def sample_cases() -> Iterator[Row]:
    for case in json.loads((SAMPLES / "pii_cases.json").read_text()):
        places = frozenset((start, end, case["entity"]) for start, end in case["expected_spans"])
        if places or case["spans_complete"]:
            yield Row(case["text"], places, True, case["entity"])


def sample_documents(entities: frozenset[str]) -> Iterator[Row]:
    for document in json.loads((SAMPLES / "pii_documents.json").read_text()):
        places = frozenset(
            (span["start_position"], span["end_position"], span["entity_type"])
            for span in document["spans"]
            if span["entity_type"] in entities
        )
        yield Row(document["full_text"], places)


def own_sentences() -> Iterator[Row]:
    for line in OWN.read_text().splitlines():
        row = json.loads(line)
        places = frozenset((start, end, entity) for start, end, entity in row["spans"])
        yield Row(row["text"], places, True, row.get("about", ""))


@functools.cache
def scanner(entities: frozenset[str], threshold: float) -> PatternScanner:
    return PatternScanner.compile(Selection(entities=entities, threshold=threshold))


def found_places(text: str, entities: frozenset[str], threshold: float) -> frozenset[Place]:
    return frozenset((span.start, span.end, span.entity) for span in scanner(entities, threshold).scan(text))


def tally(rows: Iterable[tuple[Row, frozenset[Place]]], show: bool) -> dict[str, Count]:
    """Counts by entity; exact extents."""
    counts: dict[str, Count] = defaultdict(Count)
    for row, found in rows:
        for _, _, entity in row.places & found:
            counts[entity].right += 1
        for _, _, entity in found - row.places:
            counts[entity].wrong += 1
        for _, _, entity in row.places - found:
            counts[entity].missed += 1
        if row.entity:
            counts[row.entity].right += 0
        if show and row.places != found:
            print(
                f"    {row.entity} {row.text!r}: missed {sorted(row.places - found)}, wrong {sorted(found - row.places)}"  # noqa: E501
            )
    return counts


def report(title: str, counts: dict[str, Count]) -> None:
    """Entities that occur; macro over those with something to find."""
    print(f"\n{title}\n{'entity':<28}{'right':>6}{'wrong':>6}{'missed':>7}{'P':>7}{'R':>7}{'F1':>7}")
    occurring = {entity: count for entity, count in counts.items() if count.right or count.missed}
    for entity, count in sorted(counts.items()):
        if count.right or count.missed or count.wrong:
            numbers = f"{count.right:>6}{count.wrong:>6}{count.missed:>7}"
            print(f"{entity:<28}{numbers}{count.precision:>7.2f}{count.recall:>7.2f}{count.f1:>7.2f}")
    macro = sum(count.f1 for count in occurring.values()) / max(len(occurring), 1)
    total = Count(*(sum(getattr(count, field) for count in counts.values()) for field in ("right", "wrong", "missed")))
    print(
        f"macro F1 {macro:.3f} over {len(occurring)} entities; all rows together P {total.precision:.3f} R {total.recall:.3f} F1 {total.f1:.3f}"  # noqa: E501
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", action="store_true", help="print every row that isn't right")
    show = arguments.parse_args().rows
    if OWN.exists():
        rows = list(own_sentences())
        together = frozenset[str]()
        report(f"own sentences ({len(rows)}), all entities together, threshold 0.4",
               tally(((row, found_places(row.text, together, 0.4)) for row in rows), show))  # fmt: skip
    if not SAMPLES.exists():
        print("no samples beside the checkout")
        return
    known = {pattern.entity for _, pattern in selected(Selection())} | {"DATE_TIME", "URL"}
    cases = [row for row in sample_cases() if row.entity in known]
    for threshold in (0.0, 0.4):
        counts = tally(((row, found_places(row.text, frozenset({row.entity}), threshold)) for row in cases), show)
        report(f"sample cases ({len(cases)}), each entity alone, threshold {threshold}", counts)
    judged = frozenset(
        {"CREDIT_CARD", "PHONE_NUMBER", "EMAIL_ADDRESS", "IBAN_CODE", "US_SSN", "US_DRIVER_LICENSE", "IP_ADDRESS"}
    )
    documents = list(sample_documents(judged))
    report(f"sample documents ({len(documents)}), all entities together, threshold 0.4",
           tally(((row, found_places(row.text, frozenset(), 0.4)) for row in documents), show))  # fmt: skip


if __name__ == "__main__":
    main()
