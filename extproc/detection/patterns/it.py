"""Italy."""

from __future__ import annotations

from extproc.detection import checksums
from extproc.detection.patterns.pattern import Check, Pattern

FISCAL_WORDS = ("codice fiscale", "cod. fisc", "c.f", "cf", "fiscal code", "tessera sanitaria")
VAT_WORDS = ("partita iva", "p.iva", "p. iva", "iva", "vat", "piva")
LICENCE_WORDS = ("patente", "guida", "driver license", "driving licence", "license")
ID_WORDS = ("carta d'identità", "carta identità", "carta di identità", "identità", "cie", "identity card")
PASSPORT_WORDS = ("passaporto", "italian passport")
VEHICLE_WORDS = ("targa", "veicolo", "auto", "macchina", "plate")

_ODD = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (*(1, 0, 5, 7, 9, 13, 15, 17, 19, 21), *(1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14),
         *(16, 10, 22, 25, 24, 23)),
        strict=True,
    )
)  # fmt: skip


def fiscal(number: str) -> bool:
    """Ministerial decree 23 December 1976: odd places by table, even by value, mod 26 gives the letter."""
    even = sum(int(character) if character.isdigit() else ord(character) - 65 for character in number[1:15:2])
    odd = sum(_ODD[character] for character in number[0:15:2])
    return chr(65 + (odd + even) % 26) == number[15]


def vat(number: str) -> bool:
    """Agenzia delle Entrate: Luhn; the taxpayer's number isn't zero."""
    return checksums.luhn(number) and number[:7] != "0000000"


_D = "0-9LMNPQRSTUVlmnpqrstuv"  # a digit, or the letter that replaces it where two people share a code

PATTERNS = (
    Pattern("fiscal", "IT_FISCAL_CODE", rf"(?i)\b[a-z]{{6}}[{_D}]{{2}}[abcdehlmprst][{_D}]{{2}}[a-z][{_D}]{{3}}[a-z]\b", 0.95, 1.0, FISCAL_WORDS, Check("control_letter", fiscal)),
    Pattern("fiscal_shape", "IT_FISCAL_CODE", rf"(?i)\b[a-z]{{6}}[{_D}]{{2}}[abcdehlmprst][{_D}]{{2}}[a-z][{_D}]{{3}}[a-z]\b", 0.4, 0.8, FISCAL_WORDS),
    Pattern("vat", "IT_VAT_CODE", r"\b\d{11}\b", 0.25, 0.95, VAT_WORDS, Check("luhn", vat)),
    Pattern("vat_prefixed", "IT_VAT_CODE", r"(?i)\bit ?\d{11}\b", 0.9, 0.98, VAT_WORDS, Check("luhn", lambda number: vat(number[2:]))),
    Pattern("licence", "IT_DRIVER_LICENSE", r"(?i)\b[a-z]{2}\d{7}[a-z]\b|\bu1[bcdfghljklmnpqrstwyxz0-9]{7}[a-z]\b", 0.4, 0.9, LICENCE_WORDS),
    Pattern("id_card", "IT_IDENTITY_CARD", r"(?i)\bc[a-z]\d{5}[a-z]{2}\b", 0.2, 0.9, ID_WORDS),
    Pattern("id_card_old", "IT_IDENTITY_CARD", r"(?i)\b[a-z]{2} ?\d{7}\b|\b\d{7}[a-z]{2}\b", 0.02, 0.75, ID_WORDS),
    Pattern("passport", "IT_PASSPORT", r"(?i)\b[a-z]{2}\d{7}\b", 0.04, 0.8, PASSPORT_WORDS),
    Pattern("vehicle", "IT_VEHICLE_REGISTRATION", r"\b[A-HJ-NPR-TV-Z]{2}[ -]?\d{3}[ -]?[A-HJ-NPR-TV-Z]{2}\b", 0.2, 0.9, VEHICLE_WORDS),
)  # fmt: skip
