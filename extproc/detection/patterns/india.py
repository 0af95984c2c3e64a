"""India."""

from __future__ import annotations

from extproc.detection import checksums
from extproc.detection.patterns.pattern import Check, Form, Pattern

AADHAAR_WORDS = ("aadhaar", "aadhar", "adhaar", "uidai", "uid", "आधार")
PAN_WORDS = ("pan", "permanent account", "income tax", "पैन")
GST_WORDS = ("gst", "gstin", "goods and services")
VOTER_WORDS = ("voter", "epic", "election", "elector")
PASSPORT_WORDS = ("passport", "travel document", "पासपोर्ट")
VEHICLE_WORDS = ("vehicle", "registration", "number plate", "car", "bike", "rto", "rc", "plate")
LICENCE_WORDS = ("driving licence", "driving license", "driver's license", "dl", "licence")
BANK_WORDS = ("ifsc", "bank", "branch", "account", "neft", "rtgs")

_STATES = "AN|AP|AR|AS|BH|BR|CG|CH|DD|DL|DN|GA|GJ|HP|HR|JH|JK|KA|KL|LA|LD|MH|ML|MN|MP|MZ|NL|OD|OR|PB|PY|RJ|SK|TG|TN|TR|TS|UA|UK|UP|WB"


def aadhaar(number: str) -> bool:
    """UIDAI: twelve digits from 2 on, Verhoeff, no palindrome."""
    return number[0] in "23456789" and number != number[::-1] and checksums.verhoeff(number)


def gstin(number: str) -> bool:
    """GSTN: state code 01 to 38 (or 97), a PAN inside, Luhn mod 36."""
    return (1 <= int(number[:2]) <= 38 or number[:2] in ("97", "99")) and checksums.luhn_mod_36(number)


def gstin_shape(number: str) -> bool:
    """A state code; for numbers whose check digit is wrong."""
    return 1 <= int(number[:2]) <= 38


def series(number: str) -> bool:
    """A registration's running number is never zero."""
    return not number.endswith("0000")


_AADHAAR = Check("verhoeff", aadhaar)
_GSTIN = r"\b\d{2}[A-Z]{5}\d{4}[A-Z][1-9A-Z]Z[0-9A-Z]\b"

PATTERNS = (
    Pattern("aadhaar", "IN_AADHAAR", r"\b[2-9]\d{3}[ :-]\d{4}[ :-]\d{4}\b", 0.8, 0.97, AADHAAR_WORDS, _AADHAAR),
    Pattern("aadhaar_bare", "IN_AADHAAR", r"\b[2-9]\d{11}\b", 0.3, 0.96, AADHAAR_WORDS, _AADHAAR),
    Pattern("pan", "IN_PAN", r"\b[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]\b", 0.75, 0.97, PAN_WORDS),
    Pattern("pan_shape", "IN_PAN", r"(?i)\b[a-z]{5}\d{4}[a-z]\b", 0.2, 0.75, PAN_WORDS),
    Pattern("gstin", "IN_GSTIN", _GSTIN, 0.97, 1.0, GST_WORDS, Check("luhn_mod_36", gstin)),
    Pattern("gstin_shape", "IN_GSTIN", _GSTIN, 0.6, 0.9, GST_WORDS, Check("state_code", gstin_shape)),
    Pattern("voter", "IN_VOTER", r"(?i)\b[a-z]{3}\d{7}\b", 0.2, 0.85, VOTER_WORDS),
    Pattern("passport", "IN_PASSPORT", r"(?i)\b[a-pr-wy][1-9]\d ?\d{4}[1-9]\b", 0.1, 0.8, PASSPORT_WORDS),
    Pattern("vehicle", "IN_VEHICLE_REGISTRATION", rf"(?i)\b(?:{_STATES})[ -]?\d{{1,2}}[ -]?[a-z]{{1,3}}[ -]?\d{{4}}\b", 0.6, 0.95, VEHICLE_WORDS, Check("series", series)),
    Pattern("vehicle_bh", "IN_VEHICLE_REGISTRATION", r"(?i)\b\d{2}[ -]?bh[ -]?\d{4}[ -]?[a-z]{1,2}\b", 0.6, 0.95, VEHICLE_WORDS),
    Pattern("licence", "IN_DRIVING_LICENSE", rf"(?i)\b(?:{_STATES})[ -]?\d{{2}}[ -]?(?:19|20)\d{{2}}[ -]?\d{{7}}\b", 0.6, 0.95, LICENCE_WORDS),
    Pattern("ifsc", "IN_IFSC", r"\b[A-Z]{4}0[A-Z0-9]{6}\b", 0.3, 0.9, BANK_WORDS),
    Pattern(
        "upi", "IN_UPI", r"(?i)[a-z0-9]@(?:ok(?:axis|sbi|hdfcbank|icici)|ybl|ibl|axl|upi|paytm|apl|sbi|icici|hdfcbank|axisbank)\b",
        0.7, 0.95, ("upi", "vpa", "pay"), form=Form.TEXT,
    ),
)  # fmt: skip
