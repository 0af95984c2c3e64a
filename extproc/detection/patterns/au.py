"""Australia."""

from __future__ import annotations

from extproc.detection import checksums
from extproc.detection.patterns.pattern import Check, Pattern

TFN_WORDS = ("tfn", "tax file", "tax number", "ato")
ABN_WORDS = ("abn", "australian business", "business number")
ACN_WORDS = ("acn", "australian company", "company number", "asic")
MEDICARE_WORDS = ("medicare", "irn", "card number", "health")
PASSPORT_WORDS = ("passport", "travel document")
LICENCE_WORDS = (
    "driver licence",
    "driver's licence",
    "drivers licence",
    "driver's license",
    "driving licence",
    "licence number",
    "licence no",
)
BANK_WORDS = ("bsb", "bank", "account", "branch")


def tax_file(number: str) -> bool:
    """ATO: weights 1, 4, 3, 7, 5, 8, 6, 9, 10 (eight digits: 10, 7, 8, 4, 6, 3, 5, 1) mod 11 is 0."""
    weights = (1, 4, 3, 7, 5, 8, 6, 9, 10) if len(number) == 9 else (10, 7, 8, 4, 6, 3, 5, 1)
    return checksums.weighted_sum(number, weights) % 11 == 0 and checksums.varied(number)


def business(number: str) -> bool:
    """ABR: the first digit less one, weights 10, 1, 3, 5, ... 19, mod 89 is 0."""
    total = checksums.weighted_sum(number, (10, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19)) - 10
    return number[0] != "0" and total % 89 == 0


def company(number: str) -> bool:
    """ASIC: weights 8 to 1, the last digit completes a multiple of ten."""
    return checksums.weighted_sum(number, (8, 7, 6, 5, 4, 3, 2, 1, 1)) % 10 == 0 and checksums.varied(number)


def medicare(number: str) -> bool:
    """Services Australia: begins with 2 to 6, weights 1, 3, 7, 9 twice give the ninth digit mod 10."""
    check = checksums.weighted_sum(number[:8], (1, 3, 7, 9) * 2) % 10
    return number[0] in "23456" and check == int(number[8])


_TFN = Check("mod_11", tax_file)

PATTERNS = (
    Pattern("tfn", "AU_TFN", r"\b\d{3}[ -]\d{3}[ -]\d{3}\b", 0.5, 0.96, TFN_WORDS, _TFN),
    Pattern("tfn_bare", "AU_TFN", r"\b\d{8,9}\b", 0.1, 0.92, TFN_WORDS, _TFN),
    Pattern("abn", "AU_ABN", r"\b\d{2} \d{3} \d{3} \d{3}\b", 0.8, 0.97, ABN_WORDS, Check("mod_89", business)),
    Pattern("abn_bare", "AU_ABN", r"\b\d{11}\b", 0.3, 0.95, ABN_WORDS, Check("mod_89", business)),
    Pattern("acn", "AU_ACN", r"\b\d{3} \d{3} \d{3}\b", 0.4, 0.95, ACN_WORDS, Check("mod_10", company)),
    Pattern("acn_bare", "AU_ACN", r"\b\d{9}\b", 0.1, 0.9, ACN_WORDS, Check("mod_10", company)),
    Pattern("medicare", "AU_MEDICARE", r"\b[2-6]\d{3}[ -]\d{5}[ -]\d(?:[ /-]\d)?\b", 0.6, 0.96, MEDICARE_WORDS, Check("mod_10", medicare)),
    Pattern("medicare_bare", "AU_MEDICARE", r"\b[2-6]\d{9}\d?\b", 0.1, 0.9, MEDICARE_WORDS, Check("mod_10", medicare)),
    Pattern("passport", "AU_PASSPORT", r"(?i)\b[a-z]\d{7}\b|\bp[a-z]\d{7}\b", 0.05, 0.7, PASSPORT_WORDS),
    Pattern("licence", "AU_DRIVER_LICENSE", r"\b\d{8,10}\b|\b\d{3} \d{3} \d{3}\b|\b\d{4}[A-Z]{2}\b", 0.01, 0.6, LICENCE_WORDS),
    Pattern("bsb", "AU_BANK_NUMBER", r"\b\d{3}-\d{3}(?: \d{5,10})?\b", 0.05, 0.75, BANK_WORDS),
)  # fmt: skip
