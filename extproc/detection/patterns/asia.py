"""South Korea, Thailand and the Philippines."""

from __future__ import annotations

import re

from extproc.detection import checksums
from extproc.detection.patterns.pattern import Check, Pattern

RRN_WORDS = ("rrn", "resident registration", "주민등록", "주민번호")
FRN_WORDS = ("frn", "foreigner registration", "alien registration", "외국인등록")
BRN_WORDS = ("brn", "business registration", "사업자등록", "사업자번호")
KR_PASSPORT_WORDS = ("passport", "여권")
KR_OLD_PASSPORT_WORDS = ("korean passport", "여권")
KR_LICENCE_WORDS = ("driver license", "driver's license", "driving licence", "운전면허", "면허")
KR_BANK_WORDS = ("account", "bank", "계좌", "은행")
KR_VEHICLE_WORDS = ("차량", "번호판", "자동차", "plate")
TNIN_WORDS = ("tnin", "national id", "id card", "บัตรประชาชน", "ประจำตัวประชาชน")
TH_PASSPORT_WORDS = ("thai passport", "หนังสือเดินทาง")
TH_PHONE_WORDS = ("โทร", "phone", "mobile", "call")
PH_TIN_WORDS = ("tin", "taxpayer", "bir", "tax identification")
PH_SSS_WORDS = ("sss", "social security")
PHILHEALTH_WORDS = ("philhealth", "pin", "health insurance")
PHILSYS_WORDS = ("philsys", "psn", "pcn", "national id", "philid")
UMID_WORDS = ("umid", "crn", "common reference")
PH_PASSPORT_WORDS = ("passport", "pasaporte")
PH_LICENCE_WORDS = ("driver's license", "driver license", "lto", "lisensya")
PH_MOBILE_WORDS = ("globe", "smart", "gcash", "numero", "cp number", "philippine", "manila", "tawag", "itext")

# ISO 3166-2:TH: how many provinces each leading digit has; the codes of its tens run from 0.
_TH_PROVINCES = re.compile(r"1\d|2[0-7]|[34]\d|5[0-8]|[67][0-7]|8[0-6]|9[0-6]")
_KR_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)


def korean_birth(number: str) -> bool:
    """Resident Registration Act: a birth date whose century the seventh digit tells."""
    century = {"1": 1900, "2": 1900, "5": 1900, "6": 1900, "9": 1800, "0": 1800}.get(number[6], 2000)
    return checksums.calendar_date(century + int(number[:2]), int(number[2:4]), int(number[4:6]))


def resident(number: str) -> bool:
    """Weights 2 to 9 and 2 to 5 mod 11; numbers given out since October 2020 have a random end and fail it."""
    return korean_birth(number) and (11 - checksums.weighted_sum(number, _KR_WEIGHTS) % 11) % 10 == int(number[12])


def foreigner(number: str) -> bool:
    """As for residents, plus two."""
    return korean_birth(number) and (13 - checksums.weighted_sum(number, _KR_WEIGHTS) % 11) % 10 == int(number[12])


def korean_business(number: str) -> bool:
    """National Tax Service: weights 1, 3, 7 thrice with the ninth digit's 5 carried, mod 10."""
    total = checksums.weighted_sum(number, (1, 3, 7, 1, 3, 7, 1, 3, 5)) + int(number[8]) * 5 // 10
    return (10 - total % 10) % 10 == int(number[9]) and number[:3] != "000"


def korean_licence(number: str) -> bool:
    """National Police Agency: the office is 11 to 28."""
    return 11 <= int(number[:2]) <= 28


def thai(number: str) -> bool:
    """Department of Provincial Administration: category 1 to 8, a province, weights 13 to 2 mod 11."""
    check = (11 - checksums.weighted_sum(number, range(13, 1, -1)) % 11) % 10
    return bool(_TH_PROVINCES.match(number[1:3])) and check == int(number[12])


def philippine_tin(number: str) -> bool:
    """Nine digits and a branch; the public format has no check digit."""
    return checksums.varied(number[:9])


_RRN = r"\b\d{2}[01]\d[0-3]\d-?[1-4]\d{6}\b"
_FRN = r"\b\d{2}[01]\d[0-3]\d-?[5-8]\d{6}\b"
_BORN = Check("birth_date", korean_birth)

KOREA = (
    Pattern("rrn", "KR_RRN", _RRN, 0.9, 0.98, RRN_WORDS, Check("mod_11", resident)),
    Pattern("rrn_random", "KR_RRN", _RRN, 0.5, 0.96, RRN_WORDS, _BORN),
    Pattern("frn", "KR_FRN", _FRN, 0.9, 0.98, FRN_WORDS, Check("mod_11", foreigner)),
    Pattern("frn_random", "KR_FRN", _FRN, 0.5, 0.96, FRN_WORDS, _BORN),
    Pattern("brn", "KR_BRN", r"\b\d{3}-\d{2}-\d{5}\b", 0.85, 0.97, BRN_WORDS, Check("mod_10", korean_business)),
    Pattern("brn_bare", "KR_BRN", r"\b\d{10}\b", 0.15, 0.93, BRN_WORDS, Check("mod_10", korean_business)),
    Pattern("passport", "KR_PASSPORT", r"(?i)\b[msrodg]\d{3}[a-z]\d{4}\b", 0.4, 0.9, KR_PASSPORT_WORDS),
    Pattern("passport_old", "KR_PASSPORT", r"(?i)\b[msrodg]\d{8}\b", 0.05, 0.8, KR_OLD_PASSPORT_WORDS),
    Pattern("licence", "KR_DRIVER_LICENSE", r"\b[12]\d-\d{2}-\d{6}-\d{2}\b", 0.6, 0.97, KR_LICENCE_WORDS, Check("office", korean_licence)),
    Pattern("bank", "KR_BANK_ACCOUNT", r"\b\d{3,6}-\d{2,6}-\d{3,7}(?:-\d{1,3})?\b", 0.05, 0.7, KR_BANK_WORDS),
    Pattern("vehicle", "KR_VEHICLE_REGISTRATION", r"\b\d{2,3}(?:\xea[\xb0-\xbf]|[\xeb\xec][\x80-\xbf]|\xed[\x80-\x9e])[\x80-\xbf] ?\d{4}\b", 0.4, 0.9, KR_VEHICLE_WORDS),
)  # fmt: skip

THAILAND = (
    Pattern("tnin", "TH_TNIN", r"\b[1-8]\d{12}\b", 0.6, 0.97, TNIN_WORDS, Check("mod_11", thai)),
    Pattern("tnin_dashed", "TH_TNIN", r"\b[1-8][ -]\d{4}[ -]\d{5}[ -]\d{2}[ -]\d\b", 0.85, 0.98, TNIN_WORDS, Check("mod_11", thai)),
    Pattern("passport", "TH_PASSPORT", r"\b[A-Z]{1,2}\d{6,7}\b", 0.03, 0.75, TH_PASSPORT_WORDS),
)  # fmt: skip

PHILIPPINES = (
    Pattern("tin", "PH_TIN", r"\b\d{3}-\d{3}-\d{3}(?:-\d{3,5})?\b", 0.05, 0.85, PH_TIN_WORDS, Check("varied", philippine_tin)),
    Pattern("tin_bare", "PH_TIN", r"\b(?:\d{9}|\d{12})\b", 0.01, 0.6, PH_TIN_WORDS, Check("varied", philippine_tin)),
    Pattern("sss", "PH_SSS", r"\b\d{2}-\d{7}-\d\b", 0.5, 0.95, PH_SSS_WORDS),
    Pattern("philhealth", "PH_PHILHEALTH", r"\b\d{2}-\d{9}-\d\b", 0.5, 0.95, PHILHEALTH_WORDS),
    Pattern("philsys", "PH_PHILSYS", r"\b\d{4}-\d{4}-\d{4}(?:-\d{4})?\b", 0.05, 0.85, PHILSYS_WORDS),
    Pattern("umid", "PH_UMID", r"\b\d{4}-\d{7}-\d\b", 0.5, 0.95, UMID_WORDS),
    Pattern("passport", "PH_PASSPORT", r"(?i)\bp\d{7}[a-z]\b", 0.3, 0.9, PH_PASSPORT_WORDS),
    Pattern("licence", "PH_DRIVER_LICENSE", r"(?i)\b[a-z]\d{2}-\d{2}-\d{6}\b", 0.5, 0.95, PH_LICENCE_WORDS),
    Pattern("mobile", "PH_MOBILE_NUMBER", r"\+63[ -]?(?:\(9\d{2}\)|9\d{2})[ -]?\d{3}[ -]?\d{4}\b", 0.9, 0.97, PH_MOBILE_WORDS),
    Pattern("mobile_national", "PH_MOBILE_NUMBER", r"\b09\d{2}[ -]?\d{3}[ -]?\d{4}\b", 0.4, 0.92, PH_MOBILE_WORDS),
)  # fmt: skip
