"""Canada."""

from __future__ import annotations

from extproc.detection import checksums
from extproc.detection.patterns.pattern import Check, Pattern

SIN_WORDS = ("sin", "social insurance", "nas", "assurance sociale", "numéro d'assurance")
HEALTH_WORDS = ("health card", "health number", "ohip", "phn", "ramq", "carte santé", "assurance maladie", "msp", "hcn")
PASSPORT_WORDS = ("passport", "passeport", "travel document")
LICENCE_WORDS = (
    "driver's licence",
    "driver licence",
    "drivers licence",
    "permis de conduire",
    "licence number",
    "ontario",
    "quebec",
)
BUSINESS_WORDS = ("business number", "gst", "hst", "numéro d'entreprise", "cra", "tax")
BANK_WORDS = ("transit", "institution", "account", "compte", "bank", "banque")
POSTAL_WORDS = ("postal code", "code postal", "address", "adresse", "mail", "canada", "live", "lives", "ship")


def social_insurance(number: str) -> bool:
    """Service Canada: Luhn; no number begins with 0 or 8."""
    return number[0] not in "08" and checksums.luhn(number) and checksums.varied(number)


def ontario_health(number: str) -> bool:
    """Ontario Ministry of Health: Luhn over ten digits, the first not 0; a version code of two letters may follow."""
    return number[0] != "0" and checksums.luhn(number[:10]) and checksums.varied(number[:10])


def british_columbia_health(number: str) -> bool:
    """BC Ministry of Health: begins with 9, weights 2, 4, 8, 5, 10, 9, 7, 3 mod 11."""
    check = 11 - checksums.weighted_sum(number[1:9], (2, 4, 8, 5, 10, 9, 7, 3)) % 11
    return number[0] == "9" and check < 10 and check == int(number[9])


def business(number: str) -> bool:
    """CRA: the nine digits hold Luhn."""
    return checksums.luhn(number[:9]) and checksums.varied(number[:9])


def quebec_health(number: str) -> bool:
    """RAMQ: four letters, then year, month (plus 50 for women) and day of birth."""
    return checksums.day_of_century(int(number[4:6]), int(number[6:8]) % 50, int(number[8:10]))


_LETTER = "ABCEGHJ-NPRSTVWXYZabceghj-nprstvwxyz"
_SIN = Check("luhn", social_insurance)

PATTERNS = (
    Pattern("sin", "CA_SIN", r"\b[1-79]\d{2}[ -]\d{3}[ -]\d{3}\b", 0.6, 0.96, SIN_WORDS, _SIN),
    Pattern("sin_bare", "CA_SIN", r"\b[1-79]\d{8}\b", 0.2, 0.93, SIN_WORDS, _SIN),
    Pattern("ontario_health", "CA_HEALTH_CARD", r"\b\d{4}[ -]?\d{3}[ -]?\d{3}(?:[ -]?[A-Z]{2})?\b", 0.15, 0.9, HEALTH_WORDS, Check("luhn", ontario_health)),
    Pattern("bc_health", "CA_HEALTH_CARD", r"\b9\d{3}[ -]?\d{3}[ -]?\d{3}\b", 0.2, 0.92, HEALTH_WORDS, Check("mod_11", british_columbia_health)),
    Pattern("quebec_health", "CA_HEALTH_CARD", r"\b[A-Z]{4}[ -]?\d{4}[ -]?\d{4}\b|\b[a-z]{4}\d{8}\b", 0.45, 0.95, HEALTH_WORDS, Check("birth_date", quebec_health)),
    Pattern("passport", "CA_PASSPORT", r"(?i)\b[a-z]{2}\d{6}\b|\b[a-z]\d{6}[a-z]{2}\b", 0.05, 0.7, PASSPORT_WORDS),
    Pattern("licence", "CA_DRIVER_LICENSE", r"(?i)\b[a-z]\d{4}[ -]\d{5}[ -]\d{5}\b|\b[a-z]\d{4}-\d{6}-\d{2}\b|\b\d{6}-\d{3}\b", 0.2, 0.8, LICENCE_WORDS),
    Pattern("business", "CA_BN", r"(?i)\b\d{9} ?r[cmptz] ?\d{4}\b", 0.8, 0.97, BUSINESS_WORDS, Check("luhn", business)),
    Pattern("business_bare", "CA_BN", r"\b\d{9}\b", 0.05, 0.8, BUSINESS_WORDS, Check("luhn", business)),
    Pattern("postal", "CA_POSTAL_CODE", rf"\b[ABCEGHJ-NPRSTVXYabceghj-nprstvxy]\d[{_LETTER}][ -]?\d[{_LETTER}]\d\b", 0.4, 0.85, POSTAL_WORDS),
    Pattern("transit", "CA_BANK_NUMBER", r"\b\d{5}-\d{3}(?:-\d{7,12})?\b", 0.05, 0.75, BANK_WORDS),
)  # fmt: skip
