"""France."""

from __future__ import annotations

from extproc.detection import checksums
from extproc.detection.patterns.pattern import Check, Pattern

NIR_WORDS = (
    "sécurité sociale",
    "securite sociale",
    "numéro de sécu",
    "nir",
    "insee",
    "assuré",
    "carte vitale",
    "social security",
)
COMPANY_WORDS = ("siren", "siret", "entreprise", "société", "rcs", "établissement")
VAT_WORDS = ("tva", "vat", "intracommunautaire")
TAX_WORDS = ("numéro fiscal", "spi", "impôts", "fiscale", "tax")
ID_WORDS = ("carte d'identité", "carte nationale", "cni", "identité", "identity card")
PASSPORT_WORDS = ("passeport", "french passport")
LICENCE_WORDS = ("permis de conduire", "permis", "driving licence")
VEHICLE_WORDS = ("immatriculation", "plaque", "véhicule", "voiture", "plate")


def social(number: str) -> bool:
    """INSEE: 97 less the number mod 97; Corsica's 2A and 2B count as 19 and 18."""
    digits = number[:13].replace("2A", "19").replace("2B", "18")
    return 97 - int(digits) % 97 == int(number[13:])


def vat(number: str) -> bool:
    """DGFiP: the key is 12 plus three times the SIREN mod 97, mod 97."""
    siren = number[4:]
    return (12 + 3 * (int(siren) % 97)) % 97 == int(number[2:4]) and checksums.luhn(siren)


def tax(number: str) -> bool:
    """DGFiP: SPI, the first ten digits mod 511 are the last three."""
    return number[0] in "0123" and int(number[:10]) % 511 == int(number[10:])


def company(number: str) -> bool:
    """INSEE: Luhn over SIREN or SIRET."""
    return checksums.luhn(number) and checksums.varied(number)


_NIR = Check("mod_97", social)
_LUHN = Check("luhn", company)

PATTERNS = (
    Pattern("nir", "FR_NIR", r"\b[1-478]\d{2}(?:0[1-9]|1[0-2]|[2-9]\d)(?:\d{2}|2[AB])\d{6}\d{2}\b", 0.9, 0.98, NIR_WORDS, _NIR),
    Pattern("nir_spaced", "FR_NIR", r"\b[1-478][ .-]?\d{2}[ .-]?(?:0[1-9]|1[0-2]|[2-9]\d)[ .-]?(?:\d{2}|2[AB])[ .-]?\d{3}[ .-]?\d{3}(?: - |[ .-])?\d{2}\b", 0.9, 0.98, NIR_WORDS, _NIR),
    Pattern("siren", "FR_SIREN", r"\b\d{9}\b|\b\d{3} \d{3} \d{3}\b", 0.1, 0.9, COMPANY_WORDS, _LUHN),
    Pattern("siret", "FR_SIRET", r"\b\d{14}\b|\b\d{3} \d{3} \d{3} \d{5}\b", 0.3, 0.93, COMPANY_WORDS, _LUHN),
    Pattern("vat", "FR_VAT", r"(?i)\bfr ?\d{2} ?\d{3} ?\d{3} ?\d{3}\b", 0.9, 0.98, VAT_WORDS, Check("siren_key", vat)),
    Pattern("tax", "FR_TAX_ID", r"\b[0-3]\d{12}\b|\b[0-3]\d \d{2} \d{3} \d{3} \d{3}\b", 0.4, 0.95, TAX_WORDS, Check("mod_511", tax)),
    Pattern("id_card", "FR_CNI", r"\b\d{12}\b|\b[A-Z0-9]{2}\d[A-Z0-9]{6}\b", 0.01, 0.7, ID_WORDS, Check("varied", checksums.varied)),
    Pattern("passport", "FR_PASSPORT", r"(?i)\b\d{2}[a-z]{2}\d{5}\b", 0.2, 0.85, PASSPORT_WORDS),
    Pattern("licence", "FR_DRIVER_LICENSE", r"\b\d{12}\b|\b\d{2}[A-Z]{2}\d{5}\b", 0.02, 0.75, LICENCE_WORDS),
    Pattern("vehicle", "FR_VEHICLE_REGISTRATION", r"\b[A-HJ-NP-TV-Z]{2}[ -]\d{3}[ -][A-HJ-NP-TV-Z]{2}\b", 0.5, 0.95, VEHICLE_WORDS),
)  # fmt: skip
