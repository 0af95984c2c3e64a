"""United States."""

from __future__ import annotations

from extproc.detection import checksums
from extproc.detection.patterns.pattern import Check, Pattern

SSN_WORDS = ("ssn", "ssns", "ssid", "social security", "social insurance", "seguro social", "soc sec")
ITIN_WORDS = ("itin", "individual taxpayer", "taxpayer id", "taxid", "tax id")
PASSPORT_WORDS = ("passport", "passports", "travel document", "pasaporte")
LICENSE_WORDS = (
    "driver license", "driver's license", "drivers license", "driving license", "license number", "license no", "license #",
    "driver id", "dl", "dmv", "dln", "licencia de conducir",
)  # fmt: skip
BANK_WORDS = ("account", "acct", "checking", "savings", "bank", "debit", "deposit", "cuenta")
ROUTING_WORDS = ("routing", "aba", "rtn", "wire", "bank", "transit")
NPI_WORDS = ("npi", "national provider", "provider number", "physician", "provider")
MBI_WORDS = ("mbi", "medicare", "beneficiary", "patient", "cms")
DEA_WORDS = ("dea", "medical license", "prescriber", "prescription", "medical", "license", "certificate")
VIN_WORDS = ("vin", "vehicle identification", "chassis", "vehicle")

_VIN_VALUES = dict(
    zip(
        "0123456789ABCDEFGHJKLMNPRSTUVWXYZ",
        (*range(10), *range(1, 9), *range(1, 6), 7, 9, *range(2, 10)),
        strict=True,
    )
)
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
# Numbers the Social Security Administration made invalid because advertisements printed them.
_ADVERTISED = frozenset({"219099999", "457555462"})


def social_security(number: str) -> bool:
    """SSA: no area 000, 666 or 900 and above, no group 00, no serial 0000; never issued in advertisements."""
    return (
        number[:3] not in ("000", "666")
        and number[0] != "9"
        and number[3:5] != "00"
        and number[5:] != "0000"
        and checksums.varied(number)
        and number not in _ADVERTISED
        and number not in ("123456789", "987654321")
    )


def area_of_another_kind(number: str) -> bool:
    """A number written like an SSN of area 9xx or 8xx, as people do in examples: the other parts not zero."""
    return number[3:5] != "00" and number[5:] != "0000" and checksums.varied(number)


def itin(number: str) -> bool:
    """IRS: begins with 9, fourth and fifth digits 50 to 65, 70 to 88, 90 to 92 or 94 to 99."""
    group = int(number[3:5])
    return 50 <= group <= 65 or 70 <= group <= 88 or 90 <= group <= 92 or 94 <= group <= 99


def routing(number: str) -> bool:
    """ABA: Federal Reserve prefix, weights 3, 7, 1."""
    prefix = int(number[:2])
    reserve = prefix <= 12 or 21 <= prefix <= 32 or 61 <= prefix <= 72 or prefix == 80
    return reserve and checksums.weighted_sum(number, (3, 7, 1) * 3) % 10 == 0 and checksums.varied(number)


def provider(number: str) -> bool:
    """CMS: NPI, Luhn with the prefix 80840 (ISO 7812 issuer of US health)."""
    return number[0] in "12" and checksums.luhn("80840" + number) and len(set(number)) > 2


def dea(number: str) -> bool:
    """DEA: d1+d3+d5 plus twice d2+d4+d6 ends in d7."""
    digits = [int(digit) for digit in number[2:]]
    return (sum(digits[0:6:2]) + 2 * sum(digits[1:6:2])) % 10 == digits[6] and number[2:] != "0000000"


def vin(number: str) -> bool:
    """49 CFR 565 / ISO 3779: ninth character is the weighted sum mod 11, X for ten."""
    total = sum(_VIN_VALUES[character] * weight for character, weight in zip(number, _VIN_WEIGHTS, strict=True))
    return number[8] == "0123456789X"[total % 11] and len(set(number)) > 5


def account(number: str) -> bool:
    """No structure is public; only what cannot be one is refused."""
    return checksums.varied(number) and not number.startswith("000000")


_SSN, _ITIN, _ROUTING, _NPI = (
    Check("ssa_ranges", social_security), Check("irs_groups", itin), Check("aba_weights", routing),
    Check("luhn_80840", provider),
)  # fmt: skip
_MBI = r"[1-9][AC-HJKMNP-RT-Yac-hjkmnp-rt-y][0-9AC-HJKMNP-RT-Yac-hjkmnp-rt-y]\d-?[AC-HJKMNP-RT-Yac-hjkmnp-rt-y][0-9AC-HJKMNP-RT-Yac-hjkmnp-rt-y]\d-?[AC-HJKMNP-RT-Yac-hjkmnp-rt-y]{2}\d\d"
# AAMVA formats: letters first and digits after; the digits-only states come with the word alone.
_LICENSE = (
    r"(?i)\b(?:[A-Z]\d{7,8}|[A-Z]\d{12}|[A-Z]\d{14}|[A-Z]\d{3}[- ]\d{3,4}[- ]\d{4}|[A-Z]\d{3}-\d{3}-\d{2}-\d{3}-\d"
    r"|[A-Z]\d{4}[- ]\d{5}[- ]\d{5}|[A-Z]{2}\d{6}[A-Z]?|\d{2}[A-Z]{3}\d{5}|\d{3}[A-Z]{2}\d{4}|[A-Z]\d{5,6})\b"
)

PATTERNS = (
    Pattern("ssn", "US_SSN", r"\b\d{3}-\d{2}-\d{4}\b", 0.7, 0.95, SSN_WORDS, _SSN),
    Pattern("ssn_spaced", "US_SSN", r"\b\d{3}[ .]\d{2}[ .]\d{4}\b", 0.5, 0.95, SSN_WORDS, _SSN),
    Pattern("ssn_bare", "US_SSN", r"\b\d{9}\b", 0.05, 0.8, SSN_WORDS, _SSN),
    Pattern("ssn_odd", "US_SSN", r"\b\d{5}-\d{4}\b|\b\d{3}-\d{6}\b", 0.05, 0.8, SSN_WORDS, _SSN),
    Pattern("ssn_like", "US_SSN", r"\b[89]\d{2}-\d{2}-\d{4}\b", 0.3, 0.6, SSN_WORDS, Check("not_zero", area_of_another_kind)),
    Pattern("itin", "US_ITIN", r"\b9\d{2}[- ]\d{2}[- ]\d{4}\b", 0.5, 0.96, ITIN_WORDS, _ITIN),
    Pattern("itin_bare", "US_ITIN", r"\b9\d{8}\b|\b9\d{4}-\d{4}\b|\b9\d{2}-\d{6}\b", 0.05, 0.8, ITIN_WORDS, _ITIN),
    Pattern("passport", "US_PASSPORT", r"(?i)\b[a-z]\d{8}\b", 0.1, 0.75, PASSPORT_WORDS),
    Pattern("passport_digits", "US_PASSPORT", r"\b\d{9}\b", 0.05, 0.65, PASSPORT_WORDS, Check("varied", checksums.varied)),
    Pattern("license", "US_DRIVER_LICENSE", _LICENSE, 0.3, 0.7, LICENSE_WORDS),
    Pattern("license_digits", "US_DRIVER_LICENSE", r"\b\d{6,14}\b", 0.01, 0.5, LICENSE_WORDS, Check("varied", checksums.varied)),
    Pattern("bank_account", "US_BANK_NUMBER", r"\b\d{8,17}\b", 0.05, 0.55, BANK_WORDS, Check("varied", account)),
    Pattern("routing", "ABA_ROUTING_NUMBER", r"\b\d{9}\b", 0.1, 0.9, ROUTING_WORDS, _ROUTING),
    Pattern("routing_dashed", "ABA_ROUTING_NUMBER", r"\b\d{4}-\d{4}-\d\b", 0.4, 0.9, ROUTING_WORDS, _ROUTING),
    Pattern("npi", "US_NPI", r"\b[12]\d{9}\b", 0.2, 0.9, NPI_WORDS, _NPI),
    Pattern("npi_grouped", "US_NPI", r"\b[12]\d{3}[ -]\d{3}[ -]\d{3}\b", 0.4, 0.9, NPI_WORDS, _NPI),
    Pattern("mbi", "US_MBI", rf"\b{_MBI}\b", 0.55, 0.95, MBI_WORDS),
    Pattern("dea", "MEDICAL_LICENSE", r"(?i)\b[abcdefghjklmprstux][a-z]\d{7}\b", 0.6, 0.95, DEA_WORDS, Check("dea_digit", dea)),
    Pattern("vin", "VIN", r"(?i)\b[0-9a-hj-npr-z]{11}[0-9a-hj-npr-z]\d{5}\b", 0.7, 0.95, VIN_WORDS, Check("vin_digit", vin)),
)  # fmt: skip
