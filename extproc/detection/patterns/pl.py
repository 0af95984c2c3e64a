"""Poland."""

from __future__ import annotations

from extproc.detection import checksums
from extproc.detection.patterns.pattern import Check, Pattern

PESEL_WORDS = ("pesel", "ewidencyjny")
NIP_WORDS = ("nip", "podatkow", "vat")
REGON_WORDS = ("regon", "gus")
ID_WORDS = ("dowód osobisty", "dowodu osobistego", "dowód", "dowodu", "seria i numer", "identity card")
PASSPORT_WORDS = ("paszport", "polish passport")
VEHICLE_WORDS = ("rejestracyjn", "tablica", "pojazd", "samochód", "plate")

_CENTURIES = {0: 1900, 1: 2000, 2: 2100, 3: 2200, 4: 1800}


def pesel(number: str) -> bool:
    """Act of 24 September 2010: birth date with the century in the month, weights 1, 3, 7, 9 mod 10."""
    month = int(number[2:4])
    year = _CENTURIES[month // 20] + int(number[:2])
    weights = (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)
    return checksums.weighted_sum(number, weights) % 10 == 0 and checksums.calendar_date(
        year, month % 20, int(number[4:6])
    )


def tax(number: str) -> bool:
    """NIP: weights 6, 5, 7, 2, 3, 4, 5, 6, 7 mod 11 give the last digit."""
    return checksums.weighted_sum(number[:9], (6, 5, 7, 2, 3, 4, 5, 6, 7)) % 11 == int(number[9]) and number[0] != "0"


def statistics(number: str) -> bool:
    """REGON: weights 8, 9, 2, 3, 4, 5, 6, 7 mod 11 mod 10 give the ninth digit."""
    check = checksums.weighted_sum(number[:8], (8, 9, 2, 3, 4, 5, 6, 7)) % 11 % 10
    return check == int(number[8]) and checksums.varied(number)


def _letters_and_digits(number: str, weights: tuple[int, ...]) -> bool:
    return sum(int(c, 36) * weight for c, weight in zip(number, weights, strict=True)) % 10 == 0


def identity(number: str) -> bool:
    """Identity card: the fourth character is the check digit, weights 7, 3, 1, 9, 7, 3, 1, 7, 3."""
    return _letters_and_digits(number, (7, 3, 1, 9, 7, 3, 1, 7, 3))


def passport(number: str) -> bool:
    """Passport: the third character is the check digit, weights 7, 3, 9, 1, 7, 3, 1, 7, 3."""
    return _letters_and_digits(number, (7, 3, 9, 1, 7, 3, 1, 7, 3))


_NIP = Check("mod_11", tax)

PATTERNS = (
    Pattern("pesel", "PL_PESEL", r"\b\d{2}(?:[02468][1-9]|[13579][0-2])[0-3]\d{6}\b", 0.6, 0.97, PESEL_WORDS, Check("pesel_digit", pesel)),
    Pattern("nip", "PL_NIP", r"\b\d{3}-\d{3}-\d{2}-\d{2}\b|\b\d{3}-\d{2}-\d{2}-\d{3}\b", 0.7, 0.97, NIP_WORDS, _NIP),
    Pattern("nip_bare", "PL_NIP", r"\b(?:[Pp][Ll])?\d{10}\b", 0.15, 0.93, NIP_WORDS, Check("mod_11", lambda number: tax(number[-10:]))),
    Pattern("regon", "PL_REGON", r"\b\d{9}\b", 0.1, 0.9, REGON_WORDS, Check("mod_11", statistics)),
    Pattern("id_card", "PL_ID_CARD", r"(?i)\b[a-z]{3} ?\d{6}\b", 0.45, 0.95, ID_WORDS, Check("weights_731", identity)),
    Pattern("passport", "PL_PASSPORT", r"(?i)\b[a-z]{2} ?\d{7}\b", 0.3, 0.9, PASSPORT_WORDS, Check("weights_739", passport)),
    Pattern("vehicle", "PL_VEHICLE_REGISTRATION", r"\b[A-Z]{2,3} ?[0-9][0-9A-Z]{3}[0-9A-Z]?\b", 0.02, 0.75, VEHICLE_WORDS),
)  # fmt: skip
