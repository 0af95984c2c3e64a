"""Turkey, South Africa and Nigeria."""

from __future__ import annotations

from extproc.detection import checksums
from extproc.detection.patterns.pattern import Check, Pattern

TCKN_WORDS = ("tckn", "tc kimlik", "t.c. kimlik", "kimlik", "national id", "vatandaşlık")
VKN_WORDS = ("vkn", "vergi", "tax id")
TR_PASSPORT_WORDS = ("pasaport", "turkish passport")
TR_PLATE_WORDS = ("plaka", "araç", "plate", "araba", "otomobil")
TR_PHONE_WORDS = ("cep", "telefonu", "telefon numara", "gsm", "numaram", "turkish", "türkiye")
ZA_ID_WORDS = (
    "id number",
    "identity number",
    "rsa id",
    "sa id",
    "south african id",
    "id no",
    "identiteit",
    "id",
    "isazisi",
)
ZA_PASSPORT_WORDS = ("south african passport", "paspoort", "south africa")
ZA_TAX_WORDS = ("sars", "tax", "income tax", "belasting")
ZA_VEHICLE_WORDS = ("plate", "registration", "vehicle", "car", "voertuig")
ZA_LICENCE_WORDS = ("driver's licence", "driving licence", "drivers licence", "licence")
NIN_WORDS = ("nin", "national identification", "national identity", "nimc")
BVN_WORDS = ("bvn", "bank verification")
NG_PASSPORT_WORDS = ("nigerian passport", "nigeria")
NG_TIN_WORDS = ("tin", "tax identification", "firs")
NG_VEHICLE_WORDS = ("plate", "vehicle", "car", "registration", "frsc")
NG_BANK_WORDS = ("nuban", "account", "bank", "acct")
NG_LICENCE_WORDS = ("driver's licence", "driver's license", "driving licence", "frsc", "licence")


def turkish(number: str) -> bool:
    """Law 5490: the tenth digit from seven times the odd less the even places, the eleventh from the sum of ten."""
    digits = [int(digit) for digit in number]
    tenth = (sum(digits[0:9:2]) * 7 - sum(digits[1:8:2])) % 10
    return digits[0] != 0 and tenth == digits[9] and sum(digits[:10]) % 10 == digits[10]


def turkish_tax(number: str) -> bool:
    """Gelir Idaresi: each digit plus its place, times a power of two, mod 9; the sum completes a multiple of ten."""
    total = 0
    for place, digit in enumerate(number[:9]):
        shifted = (int(digit) + 9 - place) % 10
        total += 9 if shifted == 9 else shifted * 2 ** (9 - place) % 9
    return -total % 10 == int(number[9])


def province(number: str) -> bool:
    """Turkish plates begin with a province, 01 to 81."""
    return 1 <= int(number[:2]) <= 81


def south_african(number: str) -> bool:
    """Department of Home Affairs: birth date, citizenship 0 to 2, Luhn."""
    born = checksums.day_of_century(int(number[:2]), int(number[2:4]), int(number[4:6]))
    return born and number[10] in "012" and checksums.luhn(number)


def south_african_tax(number: str) -> bool:
    """SARS: ten digits beginning with 0, 1, 2, 3 or 9, Luhn."""
    return number[0] in "01239" and checksums.luhn(number) and checksums.varied(number)


_TCKN = Check("tckn_digits", turkish)
_VARIED = Check("varied", checksums.varied)

TURKEY = (
    Pattern("tckn", "TR_NATIONAL_ID", r"\b[1-9]\d{9}[02468]\b", 0.8, 0.98, TCKN_WORDS, _TCKN),
    Pattern("tckn_spaced", "TR_NATIONAL_ID", r"\b[1-9]\d{2} \d{3} \d{3} \d{2}\b", 0.8, 0.98, TCKN_WORDS, _TCKN),
    Pattern("vkn", "TR_TAX_ID", r"\b\d{10}\b", 0.15, 0.93, VKN_WORDS, Check("vkn_digit", turkish_tax)),
    Pattern("passport", "TR_PASSPORT", r"(?i)\b[usz]\d{8}\b", 0.1, 0.85, TR_PASSPORT_WORDS),
    Pattern("plate", "TR_LICENSE_PLATE", r"\b\d{2} [A-Z]{1,3} \d{2,5}\b", 0.5, 0.95, TR_PLATE_WORDS, Check("province", province)),
    Pattern("plate_joined", "TR_LICENSE_PLATE", r"(?i)\b\d{2}-?[a-z]{1,3}-?\d{2,5}\b", 0.1, 0.9, TR_PLATE_WORDS, Check("province", province)),
    Pattern("phone", "TR_PHONE_NUMBER", r"\+90[ -]?(?:\([2-5]\d{2}\)|[2-5]\d{2})[ -]?\d{3}[ -]?\d{2}[ -]?\d{2}\b", 0.9, 0.97, TR_PHONE_WORDS),
    Pattern("phone_national", "TR_PHONE_NUMBER", r"\b0[ -]?(?:\([2-5]\d{2}\)|[2-5]\d{2})[ -]?\d{3}[ -]?\d{2}[ -]?\d{2}\b", 0.4, 0.92, TR_PHONE_WORDS),
    Pattern("phone_short", "TR_PHONE_NUMBER", r"\b[2-5]\d{2}[ -]?\d{3}[ -]?\d{2}[ -]?\d{2}\b", 0.05, 0.75, TR_PHONE_WORDS),
)  # fmt: skip

SOUTH_AFRICA = (
    Pattern("id", "ZA_ID_NUMBER", r"\b\d{2}[01]\d[0-3]\d{8}\b", 0.8, 0.98, ZA_ID_WORDS, Check("luhn", south_african)),
    Pattern("id_spaced", "ZA_ID_NUMBER", r"\b\d{2}[01]\d[0-3]\d \d{4} \d{3}\b|\b\d{2}[01]\d[0-3]\d \d{4} \d{2} \d\b", 0.9, 0.98, ZA_ID_WORDS, Check("luhn", south_african)),
    Pattern("passport", "ZA_PASSPORT", r"(?i)\b[admt]\d{8}\b", 0.05, 0.75, ZA_PASSPORT_WORDS),
    Pattern("tax", "ZA_TAX_NUMBER", r"\b[01239]\d{9}\b", 0.05, 0.85, ZA_TAX_WORDS, Check("luhn", south_african_tax)),
    Pattern("licence", "ZA_DRIVER_LICENSE", r"(?i)\b\d{8}[a-z0-9]{4}\b", 0.01, 0.7, ZA_LICENCE_WORDS),
    Pattern("vehicle", "ZA_VEHICLE_REGISTRATION", r"\b[A-Z]{2} ?\d{2} ?[A-Z]{2} ?(?:GP|MP|NW|L|NC|FS)\b|\b[A-Z]{3} ?\d{3} ?(?:GP|MP|NW|L|NC|FS|EC)\b|\bC[A-Z]{1,2} ?\d{3}[ -]?\d{3}\b", 0.4, 0.9, ZA_VEHICLE_WORDS),
)  # fmt: skip

NIGERIA = (
    Pattern("nin", "NG_NIN", r"\b\d{11}\b", 0.05, 0.85, NIN_WORDS, _VARIED),
    Pattern("bvn", "NG_BVN", r"\b22\d{9}\b", 0.1, 0.9, BVN_WORDS, _VARIED),
    Pattern("passport", "NG_PASSPORT", r"(?i)\b[abcf]\d{8}\b", 0.04, 0.75, NG_PASSPORT_WORDS),
    Pattern("tin", "NG_TIN", r"\b\d{8}-\d{4}\b", 0.3, 0.9, NG_TIN_WORDS),
    Pattern("vehicle", "NG_VEHICLE_REGISTRATION", r"(?i)\b[a-z]{3}[ -]?\d{3}[ -]?[a-z]{2}\b", 0.4, 0.9, NG_VEHICLE_WORDS),
    Pattern("account", "NG_BANK_NUMBER", r"\b\d{10}\b", 0.02, 0.55, NG_BANK_WORDS, _VARIED),
    Pattern("licence", "NG_DRIVER_LICENSE", r"(?i)\b[a-z]{3}\d{5}[a-z]{2}\d{2}\b|\b[a-z]{3}-\d{5}-[a-z]{2}\d{2}\b", 0.5, 0.95, NG_LICENCE_WORDS),
)  # fmt: skip
