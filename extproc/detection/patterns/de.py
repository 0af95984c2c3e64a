"""Germany."""

from __future__ import annotations

from extproc.detection import checksums
from extproc.detection.patterns.pattern import Check, Pattern

TAX_ID_WORDS = (
    "steuer-id",
    "steuerid",
    "steueridentifikation",
    "identifikationsnummer",
    "idnr",
    "steuerliche",
    "tax id",
    "tin",
)
TAX_NUMBER_WORDS = ("steuernummer", "st.-nr", "st-nr", "stnr", "steuer-nr", "finanzamt", "tax number")
VAT_WORDS = ("ust-id", "ustid", "umsatzsteuer", "vat", "mwst", "rechnung")
ID_WORDS = ("personalausweis", "ausweis", "perso", "identity card", "id card", "ausweisnummer")
PASSPORT_WORDS = ("reisepass", "passnummer", "pass-nr", "pass nr", "german passport", "deutscher pass")
LICENCE_WORDS = ("führerschein", "fuehrerschein", "fahrerlaubnis", "driving licence", "driver's license")
HEALTH_WORDS = (
    "krankenversicher",
    "krankenkasse",
    "versichertennummer",
    "kvnr",
    "gesundheitskarte",
    "health insurance",
    "egk",
)
PENSION_WORDS = (
    "rentenversicherung",
    "sozialversicherung",
    "rvnr",
    "svnr",
    "sv-nummer",
    "social security",
    "versicherungsnummer",
)
VEHICLE_WORDS = ("kennzeichen", "kfz", "nummernschild", "auto", "fahrzeug", "license plate", "wagen", "pkw")
POSTCODE_WORDS = ("plz", "postleitzahl", "postal code", "adresse", "anschrift", "wohnt", "wohnhaft", "zip")
REGISTER_WORDS = ("handelsregister", "amtsgericht", "registergericht", "hrb", "hra", "commercial register")
DOCTOR_WORDS = ("lanr", "arztnummer", "arzt", "physician")
PRACTICE_WORDS = ("bsnr", "betriebsstätte", "praxis", "practice")


def tax_id(number: str) -> bool:
    """BZSt: eleven digits, not beginning with 0, ISO 7064 mod 11,10; no digit more than three times in the first ten."""
    return number[0] != "0" and checksums.mod_11_10(number) and max(map(number[:10].count, number)) <= 3


def vat(number: str) -> bool:
    """BZSt: nine digits after DE, ISO 7064 mod 11,10."""
    return number[2] != "0" and checksums.mod_11_10(number[2:])


def _cross_sums(digits: str, weights: tuple[int, ...]) -> int:
    products = (int(digit) * weight for digit, weight in zip(digits, weights, strict=True))
    return sum(product // 10 + product % 10 for product in products)


def pension(number: str) -> bool:
    """Section 2 VKVV: area, birth date, initial as two digits; weighted cross sums mod 10."""
    day, month = int(number[2:4]), int(number[4:6])
    spelled = number[:8] + f"{ord(number[8]) - 64:02}" + number[9:11]
    weights = (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1)
    return 1 <= day <= 31 and 1 <= month <= 12 and _cross_sums(spelled, weights) % 10 == int(number[11])


def health(number: str) -> bool:
    """Section 290 SGB V: the letter as two digits, weights 1 and 2 in turn, cross sums mod 10."""
    spelled = f"{ord(number[0]) - 64:02}" + number[1:9]
    return _cross_sums(spelled, (1, 2) * 5) % 10 == int(number[9])


def doctor(number: str) -> bool:
    """KBV: weights 4 and 9 in turn over six digits; the seventh completes a multiple of ten."""
    return (checksums.weighted_sum(number[:6], (4, 9) * 3) + int(number[6])) % 10 == 0 and number[:6] != "000000"


def practice(number: str) -> bool:
    """KBV: two digits of the regional association, five of the practice, none of these zero."""
    return number[:2] != "00" and number[2:] != "0000000" and checksums.varied(number)


def postcode(number: str) -> bool:
    """Deutsche Post: 01001 to 99998."""
    return 1001 <= int(number) <= 99998


def document(number: str) -> bool:
    """ICAO 9303 check digit in the ninth place."""
    return checksums.mrz(number[:9])


def mixed(number: str) -> bool:
    """Serial numbers since 2007 mix letters and digits."""
    return any(character.isdigit() for character in number)


_SERIAL = "CFGHJKLMNPRTVWXYZcfghjklmnprtvwxyz0-9"

PATTERNS = (
    Pattern("tax_id", "DE_TAX_ID", r"\b[1-9]\d{10}\b", 0.3, 0.96, TAX_ID_WORDS, Check("mod_11_10", tax_id)),
    Pattern("tax_id_spaced", "DE_TAX_ID", r"\b[1-9]\d ?\d{3} ?\d{3} ?\d{3}\b", 0.5, 0.96, TAX_ID_WORDS, Check("mod_11_10", tax_id)),
    Pattern("tax_number", "DE_TAX_NUMBER", r"\b\d{2,3}/\d{3,4}/\d{4,5}\b", 0.45, 0.95, TAX_NUMBER_WORDS),
    Pattern("tax_number_long", "DE_TAX_NUMBER", r"\b\d{10,11}\b|\b[1-9]\d{3}0\d{8}\b", 0.02, 0.7, TAX_NUMBER_WORDS, Check("varied", checksums.varied)),
    Pattern("vat", "DE_VAT_ID", r"(?i)\bde ?\d{3} ?\d{3} ?\d{3}\b", 0.9, 0.97, VAT_WORDS, Check("mod_11_10", vat)),
    Pattern("id_card", "DE_ID_CARD", rf"\b[LMNPRTVWXYlmnprtvwxy][{_SERIAL}]{{8}}\b", 0.1, 0.8, ID_WORDS, Check("digits", mixed)),
    Pattern("id_card_check", "DE_ID_CARD", rf"\b[LMNPRTVWXY][{_SERIAL}]{{8}}\d(?:D)?\b", 0.4, 0.9, ID_WORDS, Check("mrz_digit", lambda number: checksums.mrz(number[:10]))),
    Pattern("id_card_old", "DE_ID_CARD", r"\bT\d{8}\b", 0.3, 0.8, ID_WORDS),
    Pattern("passport", "DE_PASSPORT", rf"(?i)\b[cfghjk][{_SERIAL}]{{7}}\d\b", 0.4, 0.9, PASSPORT_WORDS, Check("mrz_digit", document)),
    Pattern("passport_serial", "DE_PASSPORT", rf"(?i)\b[cfghjk][{_SERIAL}]{{8}}\b", 0.0, 0.75, PASSPORT_WORDS, Check("digits", mixed)),
    Pattern("licence", "DE_FUEHRERSCHEIN", r"(?i)\b[a-z0-9]\d{2}[a-z0-9]{6}\d[a-z0-9]\b|\b[a-z]{2}\d{8}[a-z0-9]\b", 0.1, 0.85, LICENCE_WORDS),
    Pattern("health", "DE_HEALTH_INSURANCE", r"(?i)\b[a-z]\d{9}\b", 0.6, 0.96, HEALTH_WORDS, Check("kvnr_digit", health)),
    Pattern("pension", "DE_SOCIAL_SECURITY", r"(?i)\b\d{2} ?\d{6} ?[a-z] ?\d{3}\b", 0.85, 0.97, PENSION_WORDS, Check("vkvv_digit", pension)),
    Pattern("vehicle", "DE_KFZ", r"\b(?:[A-Z]|\xc3[\x84\x96\x9c]){1,3}[- ][A-Z]{1,2}[- ]\d{1,4}[EH]?\b", 0.3, 0.9, VEHICLE_WORDS),
    Pattern("vehicle_joined", "DE_KFZ", r"\b[A-Z]{1,3}[- ][A-Z]{1,2}\d{1,4}[EH]?\b|\b[a-z]{1,3}-[a-z]{1,2}\d{1,4}[eh]?\b", 0.1, 0.85, VEHICLE_WORDS),
    Pattern("postcode", "DE_PLZ", r"\b\d{5}\b", 0.02, 0.6, POSTCODE_WORDS, Check("range", postcode)),
    Pattern("register", "DE_HANDELSREGISTER", r"\bHR[AB] ?\d{1,6}(?: [A-Z]{1,2})?\b", 0.7, 0.95, REGISTER_WORDS),
    Pattern("doctor", "DE_LANR", r"\b\d{9}\b", 0.1, 0.9, DOCTOR_WORDS, Check("kbv_digit", doctor)),
    Pattern("practice", "DE_BSNR", r"\b\d{9}\b", 0.05, 0.85, PRACTICE_WORDS, Check("kbv_region", practice)),
)  # fmt: skip
