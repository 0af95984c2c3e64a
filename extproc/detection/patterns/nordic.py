"""Sweden and Finland."""

from __future__ import annotations

from extproc.detection import checksums
from extproc.detection.patterns.pattern import Check, Form, Pattern

PERSON_WORDS = ("personnummer", "personnr", "samordningsnummer", "pnr", "personal identity", "identity code")
ORGANISATION_WORDS = ("organisationsnummer", "organisationsnr", "orgnr", "org.nr", "org nr", "företag", "bolag")
HETU_WORDS = (
    "henkilötunnus",
    "hetu",
    "sosiaaliturvatunnus",
    "personbeteckning",
    "personal identity",
    "identity code",
    "id code",
)
BUSINESS_WORDS = ("y-tunnus", "yritys", "business id", "fo-nummer", "alv")
SE_PASSPORT_WORDS = ("pass", "passnummer", "swedish passport")
FI_PASSPORT_WORDS = ("passi", "passin", "finnish passport")
SE_VEHICLE_WORDS = ("registreringsnummer", "regnr", "bil", "fordon", "plate")
FI_VEHICLE_WORDS = ("rekisteri", "auto", "ajoneuvo", "plate")
SE_LICENCE_WORDS = ("körkort", "driving licence")

_HETU = "0123456789ABCDEFHJKLMNPRSTUVWXY"
_HETU_CENTURIES = {"+": 1800} | dict.fromkeys("-YXWVU", 1900) | dict.fromkeys("ABCDEF", 2000)


def person(number: str) -> bool:
    """Skatteverket SKV 704: a birth date (the day plus 60 for coordination numbers), Luhn over the last ten digits."""
    digits = number.replace("+", "")
    short = digits[-10:]
    day = int(short[4:6]) % 60 if int(short[4:6]) > 60 else int(short[4:6])
    dated = checksums.day_of_century(int(short[:2]), int(short[2:4]), day)
    return dated and checksums.luhn(short)


def organisation(number: str) -> bool:
    """Skatteverket SKV 709: the third digit is at least 2, so that no birth date begins like it; Luhn."""
    return number[2] >= "2" and number[0] in "12356789" and checksums.luhn(number) and checksums.varied(number)


def hetu(number: str) -> bool:
    """Decree 128/2010: birth date, century sign (new ones since 2023), the nine digits mod 31 pick the last character."""
    day, month, year, sign = int(number[:2]), int(number[2:4]), int(number[4:6]), number[6]
    return (
        checksums.calendar_date(_HETU_CENTURIES[sign] + year, month, day)
        and _HETU[int(number[:6] + number[7:10]) % 31] == number[10]
        and number[7:10] not in ("000", "001")
    )


def business(number: str) -> bool:
    """PRH: weights 7, 9, 10, 5, 8, 4, 2 mod 11; a rest of one is never given out."""
    rest = checksums.weighted_sum(number[:7], (7, 9, 10, 5, 8, 4, 2)) % 11
    return rest != 1 and (11 - rest) % 11 == int(number[7])


def hetu_text(text: str) -> bool:
    """As `hetu`, for the text as it stands: the sign matters."""
    return hetu(text.upper())


SWEDEN = (
    Pattern("personnummer", "SE_PERSONNUMMER", r"\b(?:18|19|20)?\d{2}[01]\d[0-9]\d[+-]\d{4}\b", 0.85, 0.98, PERSON_WORDS, Check("luhn", person)),
    Pattern("personnummer_12", "SE_PERSONNUMMER", r"\b(?:18|19|20)\d{2}[01]\d[0-9]\d{5}\b", 0.6, 0.98, PERSON_WORDS, Check("luhn", person)),
    Pattern("personnummer_10", "SE_PERSONNUMMER", r"\b\d{2}[01]\d[0-9]\d{5}\b", 0.2, 0.96, PERSON_WORDS, Check("luhn", person)),
    Pattern("organisation", "SE_ORGANISATIONSNUMMER", r"\b\d{6}-\d{4}\b", 0.6, 0.96, ORGANISATION_WORDS, Check("luhn", organisation)),
    Pattern("organisation_bare", "SE_ORGANISATIONSNUMMER", r"\b\d{10}\b", 0.2, 0.94, ORGANISATION_WORDS, Check("luhn", organisation)),
    Pattern("passport", "SE_PASSPORT", r"\b\d{8}\b|\b[A-Z]{2}\d{6}\b", 0.01, 0.65, SE_PASSPORT_WORDS),
    Pattern("licence", "SE_DRIVER_LICENSE", r"\b\d{6}-\d{4}\b", 0.02, 0.6, SE_LICENCE_WORDS),
    Pattern("vehicle", "SE_VEHICLE_REGISTRATION", r"\b[A-HJ-PR-UW-Z]{3} ?\d{2}[0-9A-HJ-NPR-UW-Z]\b", 0.1, 0.85, SE_VEHICLE_WORDS),
)  # fmt: skip

FINLAND = (
    Pattern("hetu", "FI_PERSONAL_IDENTITY_CODE", r"(?i)[0-3]\d[01]\d{3}[-+a-fu-y]\d{3}[0-9a-fhj-npr-y]\b", 0.9, 0.99, HETU_WORDS, Check("mod_31", hetu_text), form=Form.TEXT),
    Pattern("business", "FI_BUSINESS_ID", r"\b\d{7}-\d\b", 0.5, 0.95, BUSINESS_WORDS, Check("mod_11", business)),
    Pattern("vat", "FI_VAT", r"(?i)\bfi ?\d{8}\b", 0.85, 0.97, BUSINESS_WORDS, Check("mod_11", lambda number: business(number[2:]))),
    Pattern("passport", "FI_PASSPORT", r"\b[A-Z]{2}\d{7}\b", 0.05, 0.8, FI_PASSPORT_WORDS),
    Pattern("vehicle", "FI_VEHICLE_REGISTRATION", r"\b[A-Z]{2,3}-\d{1,3}\b", 0.05, 0.85, FI_VEHICLE_WORDS),
)  # fmt: skip
