"""United Kingdom."""

from __future__ import annotations

from extproc.detection import checksums
from extproc.detection.patterns.pattern import Check, Pattern

NHS_WORDS = ("nhs", "national health", "health service", "health authority", "patient")
NINO_WORDS = ("national insurance", "nino", "ni number", "ni no", "insurance number")
UTR_WORDS = ("utr", "unique taxpayer", "self assessment", "taxpayer reference", "hmrc", "tax reference")
PASSPORT_WORDS = ("passport", "travel document", "hmpo")
LICENCE_WORDS = ("driving licence", "driver's licence", "driver licence", "driving license", "dvla", "licence number")
VEHICLE_WORDS = (
    "registration",
    "reg",
    "number plate",
    "numberplate",
    "licence plate",
    "plate",
    "vehicle",
    "car",
    "v5c",
)
POSTCODE_WORDS = ("postcode", "post code", "postal code", "address", "live at", "lives at", "delivery", "zip")
BANK_WORDS = ("sort code", "sortcode", "bank", "account")
VAT_WORDS = ("vat", "value added tax", "tax number")

_NINO_NEVER = ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")
_UTR_DIGITS = "21987654321"


def nhs(number: str) -> bool:
    """NHS Data Dictionary: weights 10 to 2, the last digit is eleven minus the sum mod 11, never ten."""
    check = 11 - checksums.weighted_sum(number, range(10, 1, -1)) % 11
    return check != 10 and check % 11 == int(number[9]) and checksums.varied(number)


def national_insurance(number: str) -> bool:
    """HMRC NIM39110: letters that never begin a number, and prefixes that are not allocated."""
    return number[0] not in "DFIQUV" and number[1] not in "DFIOQUV" and number[:2] not in _NINO_NEVER


def driving(number: str) -> bool:
    """DVLA: surname filled up with 9; decade, month (plus 50 for women), day and year of birth."""
    surname, month, day = number[:5], int(number[6:8]) % 50, int(number[8:10])
    letters = surname.rstrip("9")
    return letters.isalpha() and 1 <= month <= 12 and 1 <= day <= 31 and int(number[6:8]) < 63


def taxpayer_reference(number: str) -> bool:
    """HMRC: weights 6, 7, 8, 9, 10, 5, 4, 3, 2 over all but the first digit, which is the check."""
    return number[0] == _UTR_DIGITS[checksums.weighted_sum(number[1:], (6, 7, 8, 9, 10, 5, 4, 3, 2)) % 11]


def vat(number: str) -> bool:
    """HMRC VAT notice 700: weights 8 to 2, the last two digits complete a multiple of 97, or one 55 away."""
    digits = number.removeprefix("GB")
    total = checksums.weighted_sum(digits, range(8, 1, -1)) + int(digits[7:9])
    return total % 97 in (0, 42)


def year_mark(number: str) -> bool:
    """DVLA INF104: the age identifier is a year from 01, or fifty more from September on."""
    return 1 <= int(number[2:4]) <= 29 or 51 <= int(number[2:4]) <= 79


_OUTWARD = r"(?:[A-PR-UWYZa-pr-uwyz]\d{1,2}|[A-PR-UWYZa-pr-uwyz][A-HK-Ya-hk-y]\d{1,2}|[A-PR-UWYZa-pr-uwyz]\d[A-HJKPSTUWa-hjkpstuw]|[A-PR-UWYZa-pr-uwyz][A-HK-Ya-hk-y]\d[ABEHMNPRVWXYabehmnprvwxy])"
_NHS, _NINO, _DRIVING, _MARK = (
    Check("mod_11", nhs), Check("hmrc_prefix", national_insurance), Check("birth_date", driving),
    Check("age_identifier", year_mark),
)  # fmt: skip

PATTERNS = (
    Pattern("nhs", "UK_NHS", r"\b\d{3}[ -]\d{3}[ -]\d{4}\b", 0.6, 0.97, NHS_WORDS, _NHS),
    Pattern("nhs_bare", "UK_NHS", r"\b\d{10}\b", 0.2, 0.95, NHS_WORDS, _NHS),
    Pattern("nino", "UK_NINO", r"(?i)\b[a-z]{2}\d{6}[a-d]\b", 0.7, 0.97, NINO_WORDS, _NINO),
    Pattern("nino_spaced", "UK_NINO", r"(?i)\b[a-z]{2}[ -]?\d{2}[ -]\d{2}[ -]\d{2}[ -]?[a-d]\b", 0.7, 0.97, NINO_WORDS, _NINO),
    Pattern("utr", "UK_UTR", r"\b\d{10}\b|\b\d{5} \d{5}\b", 0.1, 0.9, UTR_WORDS, Check("mod_11", taxpayer_reference)),
    Pattern("passport", "UK_PASSPORT", r"(?i)\b[a-z]{2}\d{7}\b", 0.1, 0.75, PASSPORT_WORDS),
    Pattern("passport_digits", "UK_PASSPORT", r"\b\d{9}\b", 0.02, 0.6, PASSPORT_WORDS, Check("varied", checksums.varied)),
    Pattern(
        "licence", "UK_DRIVING_LICENCE",
        r"(?i)\b[a-z][a-z9]{4}\d[0156]\d[0-3]\d{2}[a-z9]{2}[a-z0-9][a-z]{2}\b|\b(?-i:[A-Z][A-Z9]{4}[ -]\d[0156]\d[0-3]\d{2}[ -][A-Z9]{2}[A-Z0-9][A-Z]{2})\b", 0.5, 0.97, LICENCE_WORDS, _DRIVING,
    ),
    Pattern("postcode_spaced", "UK_POSTCODE", r"\b[A-PR-UWYZ](?:\d{1,2}|[A-HK-Y]\d{1,2}|\d[A-HJKPSTUW]|[A-HK-Y]\d[ABEHMNPRVWXY]) \d[ABD-HJLNP-UW-Z]{2}\b", 0.45, 0.9, POSTCODE_WORDS),
    Pattern("postcode", "UK_POSTCODE", rf"\b{_OUTWARD} ?\d[ABD-HJLNP-UW-Zabd-hjlnp-uw-z]{{2}}\b", 0.1, 0.8, POSTCODE_WORDS),
    Pattern("vehicle", "UK_VEHICLE_REGISTRATION", r"(?i)\b[a-z]{2}\d{2}[ -]?[a-z]{3}\b", 0.4, 0.9, VEHICLE_WORDS, _MARK),
    Pattern("vehicle_prefix", "UK_VEHICLE_REGISTRATION", r"(?i)\b[a-hj-npr-tv-y]\d{1,3}[ -]?[a-z]{3}\b", 0.2, 0.7, VEHICLE_WORDS),
    Pattern("vehicle_suffix", "UK_VEHICLE_REGISTRATION", r"(?i)\b[a-z]{3}[ -]?\d{1,3}[a-hj-npr-tv-y]\b", 0.15, 0.7, VEHICLE_WORDS),
    Pattern("sort_code", "UK_SORT_CODE", r"\b\d{2}-\d{2}-\d{2}\b", 0.05, 0.8, BANK_WORDS),
    Pattern("vat", "UK_VAT", r"(?i)\bgb ?\d{3} ?\d{4} ?\d{2}\b", 0.85, 0.97, VAT_WORDS, Check("mod_97", vat)),
)  # fmt: skip
