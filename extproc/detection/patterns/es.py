"""Spain."""

from __future__ import annotations

from extproc.detection.patterns.pattern import Check, Pattern

NIF_WORDS = ("nif", "dni", "documento nacional", "identificación fiscal", "identidad")
NIE_WORDS = ("nie", "extranjero", "número de identidad", "residencia")
CIF_WORDS = ("cif", "nif", "empresa", "sociedad")
PASSPORT_WORDS = ("pasaporte", "passport")
SOCIAL_WORDS = ("seguridad social", "afiliación", "nss", "naf", "social security")
VEHICLE_WORDS = ("matrícula", "coche", "vehículo", "plate")

_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"


def personal(number: str) -> bool:
    """Royal Decree 1553/2005: the number mod 23 picks the letter."""
    return _LETTERS[int(number[:-1]) % 23] == number[-1]


def foreigner(number: str) -> bool:
    """As the NIF, with X, Y, Z as 0, 1, 2."""
    return personal(str("XYZ".index(number[0])) + number[1:])


def company(number: str) -> bool:
    """Order EHA/451/2008: Luhn over seven digits, as a digit or as one of the letters J, A to I."""
    digits = [int(digit) for digit in number[1:8]]
    total = sum(digits[1::2]) + sum(digit * 2 // 10 + digit * 2 % 10 for digit in digits[::2])
    check = -total % 10
    return number[8] in (str(check), "JABCDEFGHI"[check])


def social(number: str) -> bool:
    """TGSS: the first ten digits mod 97 (without the province's zero for numbers below ten million)."""
    province, serial = int(number[:2]), int(number[2:10])
    whole = province * (10**7 if serial < 10**7 else 10**8) + serial
    return 1 <= province <= 66 and whole % 97 == int(number[10:])


PATTERNS = (
    Pattern("nif", "ES_NIF", r"(?i)\b\d{7,8}[ -]?[a-hj-np-tv-z]\b", 0.75, 0.97, NIF_WORDS, Check("mod_23", personal)),
    Pattern("nif_dotted", "ES_NIF", r"(?i)\b\d{1,2}\.\d{3}\.\d{3}[ -]?[a-hj-np-tv-z]\b", 0.8, 0.97, NIF_WORDS, Check("mod_23", personal)),
    Pattern("nie", "ES_NIE", r"(?i)\b[xyz][ -]?\d{7}[ -]?[a-hj-np-tv-z]\b", 0.85, 0.97, NIE_WORDS, Check("mod_23", foreigner)),
    Pattern("cif", "ES_CIF", r"(?i)\b[abcdefghjnpqrsuvw][ -]?\d{7}[ -]?[0-9a-j]\b", 0.5, 0.95, CIF_WORDS, Check("luhn_letter", company)),
    Pattern("passport", "ES_PASSPORT", r"(?i)\b[a-z]{3}\d{6}\b", 0.1, 0.8, PASSPORT_WORDS),
    Pattern("social", "ES_SSN", r"\b\d{2}[ /-]?\d{8}[ /-]?\d{2}\b", 0.4, 0.95, SOCIAL_WORDS, Check("mod_97", social)),
    Pattern("vehicle", "ES_VEHICLE_REGISTRATION", r"\b\d{4}[ -]?[BCDFGHJKLMNPRSTVWXYZ]{3}\b", 0.3, 0.9, VEHICLE_WORDS),
)  # fmt: skip
