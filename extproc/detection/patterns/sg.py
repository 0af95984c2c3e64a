"""Singapore."""

from __future__ import annotations

from extproc.detection import checksums
from extproc.detection.patterns.pattern import Check, Pattern

NRIC_WORDS = ("nric", "fin", "identity card", "identification", "ic number", "ic no", "work permit", "employment pass")
UEN_WORDS = ("uen", "unique entity", "acra", "business registration", "company")
PASSPORT_WORDS = ("passport", "travel document")

_NRIC_LETTERS = {"S": "JZIHGFEDCBA", "T": "JZIHGFEDCBA", "F": "XWUTRQPNMLK", "G": "XWUTRQPNMLK", "M": "KLJNPQRTUWX"}
_NRIC_OFFSETS = {"T": 4, "G": 4, "M": 3}
_UEN_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWX0123456789"


def nric(number: str) -> bool:
    """ICA: weights 2, 7, 6, 5, 4, 3, 2, an offset by century (M since 2022), a letter from the series' own list."""
    total = checksums.weighted_sum(number[1:8], (2, 7, 6, 5, 4, 3, 2)) + _NRIC_OFFSETS.get(number[0], 0)
    return _NRIC_LETTERS[number[0]][total % 11] == number[8]


def entity(number: str) -> bool:
    """ACRA: weights and letters of the three formats (business, local company, other entity)."""
    if len(number) == 9:
        return "XMKECAWLJDB"[checksums.weighted_sum(number[:8], (10, 4, 9, 3, 8, 2, 7, 1)) % 11] == number[8]
    if number[0].isdigit():
        return "ZKCMDNERGWH"[checksums.weighted_sum(number[:9], (10, 8, 6, 4, 9, 7, 5, 3, 1)) % 11] == number[9]
    weights = (4, 3, 5, 3, 10, 2, 2, 5, 7)
    values = (_UEN_ALPHABET.find(character) for character in number[:9])
    total = sum(value * weight for value, weight in zip(values, weights, strict=True))
    return _UEN_ALPHABET[(total - 5) % 11] == number[9]


_UEN = Check("acra_letter", entity)

PATTERNS = (
    Pattern("nric", "SG_NRIC_FIN", r"(?i)\b[stfgm]\d{7}[a-z]\b", 0.85, 0.97, NRIC_WORDS, Check("nric_letter", nric)),
    Pattern("nric_shape", "SG_NRIC_FIN", r"\b[STFGM]\d{7}[A-Z]\b", 0.4, 0.75, NRIC_WORDS),
    Pattern("nric_like", "SG_NRIC_FIN", r"(?i)\b[a-z]\d{7}[a-z]\b", 0.05, 0.5, NRIC_WORDS),
    Pattern("uen", "SG_UEN", r"(?i)\b(?:19|20)\d{7}[a-z]\b|\b[str]\d{2}[a-z]{2}\d{4}[a-z]\b", 0.85, 0.97, UEN_WORDS, _UEN),
    Pattern("uen_business", "SG_UEN", r"(?i)\b\d{8}[a-z]\b", 0.6, 0.96, UEN_WORDS, _UEN),
    Pattern("passport", "SG_PASSPORT", r"(?i)\b[ek]\d{7}[a-z]\b", 0.2, 0.85, PASSPORT_WORDS),
)  # fmt: skip
