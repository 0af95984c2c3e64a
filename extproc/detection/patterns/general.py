"""What is written the same way everywhere: e-mail, cards, IBAN, network addresses, wallets, phones, dates."""

from __future__ import annotations

import ipaddress
import re

from extproc.detection import checksums
from extproc.detection.patterns.pattern import Check, Form, Pattern

# ITU-T E.164 assigned country codes (Operational Bulletin annex), without +1 and +7, which are handled apart.
_TWO_DIGIT_COUNTRIES = frozenset(
    [
        "20",
        "27",
        "30",
        "31",
        "32",
        "33",
        "34",
        "36",
        "39",
        "40",
        "41",
        "43",
        "44",
        "45",
        "46",
        "47",
        "48",
        "49",
        "51",
        "52",
        "53",
        "54",
        "55",
        "56",
        "57",
        "58",
        "60",
        "61",
        "62",
        "63",
        "64",
        "65",
        "66",
        "81",
        "82",
        "84",
        "86",
        "90",
        "91",
        "92",
        "93",
        "94",
        "95",
        "98",
    ]
)
_THREE_DIGIT_COUNTRIES = (
    "21",
    "22",
    "23",
    "24",
    "25",
    "26",
    "29",
    "35",
    "37",
    "38",
    "42",
    "50",
    "59",
    "67",
    "68",
    "69",
)
_THREE_DIGIT_COUNTRIES_EAST = ("80", "85", "87", "88", "96", "97", "99")

# Issuer ranges of ISO/IEC 7812 numbers: first digits, then the lengths that are issued with them.
_CARD_RANGES = (
    (re.compile(r"4"), (13, 16, 19)),
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), (16,)),
    (re.compile(r"3[47]|2131|1800"), (15,)),
    (re.compile(r"30[0-5]|3095|3[689]"), (14, 16, 17, 18, 19)),
    (re.compile(r"35(?:2[89]|[3-8])|2131|1800"), (15, 16, 17, 18, 19)),
    (re.compile(r"6011|64[4-9]|65|62|81|60|82|508|220[0-5]|9792|63[6-9]"), (16, 17, 18, 19)),
    (re.compile(r"50|5[6-9]|6"), (12, 13, 14, 15, 16, 17, 18, 19)),
)

MONTHS = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sep(?:t(?:ember)?)?|"
    "oct(?:ober)?|nov(?:ember)?|dec(?:ember)?|enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre|"
    "noviembre|diciembre|janvier|février|mars|avril|mai|juin|juillet|août|septembre|octobre|novembre|"
    "décembre|januar|februar|märz|juni|juli|oktober|dezember|gennaio|febbraio|aprile|maggio|giugno|luglio|"
    "settembre|ottobre|dicembre|stycznia|lutego|marca|kwietnia|maja|czerwca|lipca|sierpnia|września|"
    "października|listopada|grudnia|januari|februari|maj|augusti|ocak|şubat|nisan|mayıs|haziran|temmuz|"
    "ağustos|eylül|ekim|kasım|aralık"
)
_DAY, _MONTH, _YEAR = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])", r"(?:19|20)\d\d"
_CLOCK = r"(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:?\d\d)?)?"

CARD_WORDS = (
    "credit card", "debit card", "card", "visa", "mastercard", "amex", "american express", "discover", "maestro", "cc",
    "pan", "tarjeta", "carte bancaire", "carte bleue", "kreditkarte", "kartennummer", "carta di credito", "karta",
    "kort", "luottokortti", "kredi kart", "카드", "บัตร", "卡",
)  # fmt: skip
PHONE_WORDS = (
    "phone", "telephone", "tel", "mobile", "cell", "call", "called", "calling", "text me", "sms", "whatsapp", "fax",
    "dial", "reach", "ring me", "message me", "messages to", "message on", "desk", "answering", "téléphone", "tél", "portable", "appel", "telefon", "handy", "mobil", "anruf", "rufnummer",
    "teléfono", "móvil", "celular", "llam", "telefono", "cellulare", "chiama", "telefoon", "puhelin",
    "komórka", "numer telefonu", "cep", "gsm", "전화", "휴대폰", "โทร", "電話",
    "电话", "selepono", "numero ng telepono",
)  # fmt: skip
BIRTH_WORDS = (
    "born", "birth", "birthday", "birthdate", "dob", "d.o.b", "b-day", "geboren", "geburt", "geb", "naci", "nacimiento",
    "naissance", "né le", "née le", "nato il", "nata il", "nascita", "nascimento", "urodzon", "urodzenia",
    "född", "födelse", "syntynyt", "syntymä", "doğum", "생년월일", "생일", "เกิด",
    "出生", "生年月日", "kapanganakan",
)  # fmt: skip
IBAN_WORDS = ("iban", "account", "bank", "konto", "cuenta", "compte", "conto", "rachunek", "tili", "hesap")


def issued_card(number: str) -> bool:
    """Issuer range and length (ISO/IEC 7812), Luhn."""
    return (
        any(len(number) in lengths and prefix.match(number) for prefix, lengths in _CARD_RANGES)
        and checksums.luhn(number)
        and checksums.varied(number)
    )


def long_luhn(number: str) -> bool:
    """Luhn alone, for issuers that the table doesn't know."""
    return checksums.luhn(number) and len(set(number)) > 2


def international(number: str) -> bool:
    """E.164: an assigned country code and a length that it may have; NANP numbers have eleven digits."""
    digits = number.removeprefix("+").split("X")[0]
    if digits[:1] == "1":
        return len(digits) == 11 and digits[1] in "23456789"
    if digits[:1] == "7":
        return len(digits) == 11
    if digits[:2] in _TWO_DIGIT_COUNTRIES:
        return 9 <= len(digits) <= 13
    return digits.startswith(_THREE_DIGIT_COUNTRIES + _THREE_DIGIT_COUNTRIES_EAST) and 9 <= len(digits) <= 15


def north_american(number: str) -> bool:
    """NANP: area code and exchange; neither begins with 0, nor the area code with 1."""
    digits = number.removeprefix("+").split("X")[0].split("E")[0]
    digits = digits[1:] if len(digits) == 11 else digits
    return len(digits) == 10 and digits[0] in "23456789" and digits[3] != "0"


def subscriber(number: str) -> bool:
    """Seven to twelve digits, not all the same."""
    digits = number.split("X")[0]
    return 7 <= len(digits) <= 12 and checksums.varied(digits)


def trunk(number: str) -> bool:
    """A national number with its trunk 0: nine to twelve digits."""
    return 9 <= len(number) <= 12 and number[1:2] != "0" and checksums.varied(number[1:])


def address(text: str) -> bool:
    """An IPv4 or IPv6 address (RFC 4291, RFC 4007 zones), alone or with a prefix length."""
    host, slash, bits = text.partition("/")
    try:
        size = ipaddress.ip_address(host).max_prefixlen
    except ValueError:
        return False
    return not slash or (bits.isdigit() and int(bits) <= size)


def mailbox(text: str) -> bool:
    """RFC 5321 lengths, no empty label, and no file name for a top-level domain."""
    local, _, domain = text.rpartition("@")
    top = domain.rpartition(".")[2].lower()
    return (
        len(local) <= 64
        and not local.startswith(".")
        and ".." not in local
        and top not in {"png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "py", "json", "html"}
    )


def ethereum(text: str) -> bool:
    """Twenty bytes of hex, not all alike; the mixed-case checksum (EIP-55) needs Keccak and isn't checked."""
    return len(set(text[2:].lower())) > 4


def numeric_date(text: str) -> bool:
    """Two or three numbers that are a day in some order: ISO, day first or month first."""
    parts = [int(part) for part in re.split(r"\D+", text[:10]) if part]
    if len(parts) < 3:
        return len(parts) == 2
    first, second, third = parts[:3]
    if first > 31:
        return checksums.calendar_date(first, second, third)
    year = third if third > 99 else 2000 + third
    return checksums.calendar_date(year, second, first) or checksums.calendar_date(year, first, second)


_ORDINAL = r"(?:st|nd|rd|th|\.|er|\xc2\xba)?"
_DATES = (
    ("iso_date", rf"\b{_YEAR}[-/.]{_MONTH}[-/.]{_DAY}", rf"{_YEAR}[-/.]{_MONTH}[-/.]{_DAY}(?!\d){_CLOCK}(?!\d)"),
    ("day_first_date", rf"\b{_DAY}[-/.]{_MONTH}[-/.](?:{_YEAR}|\d\d)\b", ""),
    ("month_first_date", rf"\b{_MONTH}[-/.]{_DAY}[-/.](?:{_YEAR}|\d\d)\b", ""),
    (
        "day_month_name",
        rf"(?i)\b{_DAY}{_ORDINAL}[ -](?:of |de |di )?(?:{MONTHS})",
        rf"(?i){_DAY}{_ORDINAL}[ -](?:of |de |di )?(?:{MONTHS})(?![a-z])(?:(?:[.,]{{0,2}} |-)(?:de |del )?{_YEAR})?(?!\d)",
    ),
    (
        "month_name_day",
        rf"(?i)\b(?:{MONTHS})\.? {_DAY}",
        rf"(?i)(?:{MONTHS})\.? {_DAY}(?:st|nd|rd|th)?(?:,? {_YEAR})?(?![0-9a-z])",
    ),
    ("east_asian_date", r"\b\d{4} ?(?:년|年) ?\d{1,2} ?(?:월|月) ?\d{1,2} ?(?:일|日)", ""),
)


def _dates() -> tuple[Pattern, ...]:
    """Every way to write a date twice: any date, and a date of birth where a word says so."""
    when = Check("calendar", numeric_date)
    found = []
    for name, expression, whole in _DATES:
        check = None if "month_name" in name or "asian" in name else when
        found.append(Pattern(name, "DATE_TIME", expression, 0.6, 0.7, (), check, whole, Form.TEXT))
        birth = Pattern(f"birth_{name}", "DATE_OF_BIRTH", expression, 0.0, 0.85, BIRTH_WORDS, check, whole, Form.TEXT)
        found.append(birth)
    return tuple(found)


_CARD = Check("issuer_luhn", issued_card)
_IBAN = Check("mod_97", checksums.iban)
_ADDRESS = Check("ip_address", address)
_LOCAL = r"[A-Za-z0-9_.+%&*=!#~\x80-\xbf\xc3-\xd4-]"
_LABEL = r"[A-Za-z0-9\x80-\xf4](?:[A-Za-z0-9\x80-\xf4-]{0,61}[A-Za-z0-9\x80-\xf4])?"
_SIX = r"[0-9A-Fa-f]{2}"
_URL_CHARACTER = r"[^\s\"'<>`{}|\\^]"

PATTERNS = (
    Pattern(
        "email", "EMAIL_ADDRESS", rf"[A-Za-z0-9_\xc3-\xd4]{_LOCAL}{{0,63}}@[A-Za-z0-9\xc3-\xd4]", 1.0, 1.0,
        check=Check("mailbox", mailbox), form=Form.TEXT,
        whole=rf"{_LOCAL}{{1,64}}@(?:{_LABEL}\.){{1,8}}(?:[A-Za-z]{{2,24}}|xn--[A-Za-z0-9-]{{2,59}}|[\x80-\xf4]{{4,40}})(?![A-Za-z0-9-])",
    ),
    Pattern("card", "CREDIT_CARD", r"\b\d{12,19}\b", 0.9, 1.0, CARD_WORDS, _CARD),
    Pattern("card_4444", "CREDIT_CARD", r"\b\d{4}[ -]\d{4}[ -]\d{4}[ -]\d{1,7}\b", 0.95, 1.0, CARD_WORDS, _CARD),
    Pattern("card_unknown_issuer", "CREDIT_CARD", r"\b\d{13,19}\b", 0.1, 0.8, CARD_WORDS, Check("luhn", long_luhn)),
    Pattern("card_465", "CREDIT_CARD", r"\b3\d{3}[ -]\d{6}[ -]\d{4,5}\b", 0.95, 1.0, CARD_WORDS, _CARD),
    Pattern(
        "iban", "IBAN_CODE", r"\b(?:[A-Z]{2}|[a-z]{2})\d\d[ -]?[0-9A-Za-z]{4}", 1.0, 1.0, IBAN_WORDS, _IBAN,
        whole=r"(?:[A-Z]{2}\d\d(?:[ -]?[0-9A-Z]{4}){2,7}(?:[ -]?[0-9A-Z]{1,3})?(?:[ -][0-9A-Z]{1,3})?|[a-z]{2}\d\d[0-9a-z]{11,30})(?![0-9A-Za-z])",
    ),
    Pattern("iban_uneven", "IBAN_CODE", r"\b[A-Z]{2}\d\d(?: [0-9A-Z]{2,6}){3,7}\b", 1.0, 1.0, IBAN_WORDS, _IBAN),
    Pattern(
        "ipv4", "IP_ADDRESS", r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b", 0.6, 0.95, ("ip", "address", "server", "host"),
        _ADDRESS, whole=r"\d{1,3}(?:\.\d{1,3}){3}(?:/\d{1,2}(?!\d))?(?![\w]|\.\d)", form=Form.ADDRESS,
    ),
    Pattern(
        "ipv6", "IP_ADDRESS", r"[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:", 0.6, 0.95, ("ip", "ipv6", "address", "server"),
        _ADDRESS, form=Form.ADDRESS,
        whole=r"(?:[0-9A-Fa-f]{0,4}:){2,8}(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{0,4})(?:%\w{1,16})?(?:/\d{1,3})?(?![\w:.]\w|[\w:])",
    ),
    Pattern("mac", "MAC_ADDRESS", rf"\b{_SIX}(?::{_SIX}){{5}}\b", 0.8, 0.95, ("mac", "hardware", "ethernet"), form=Form.TEXT),
    Pattern("mac_dashed", "MAC_ADDRESS", rf"\b{_SIX}(?:-{_SIX}){{5}}\b", 0.8, 0.95, ("mac", "hardware", "ethernet"), form=Form.TEXT),
    Pattern("mac_cisco", "MAC_ADDRESS", r"\b[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\b", 0.6, 0.95, ("mac", "hardware", "ethernet"), form=Form.TEXT),
    Pattern("url", "URL", r"(?i)\b(?:https?|ftp)://[^\s\"'<>`]", 0.6, 0.7, whole=rf"(?i)(?:https?|ftp)://(?:\[[0-9a-f:.]{{2,45}}\]|[^\s\"'<>`/?#.]{{1,63}}(?:\.[^\s\"'<>`/?#.]{{1,63}}){{1,8}}\.?)(?:[/?#:]{_URL_CHARACTER}{{0,2000}})?(?<![.,;:!?)])", form=Form.TEXT),
    Pattern("url_www", "URL", r"(?i)\bwww\.[a-z0-9]", 0.5, 0.6, whole=rf"(?i)www\.(?:[a-z0-9-]{{1,63}}\.){{1,6}}[a-z]{{2,24}}(?:[/?#]{_URL_CHARACTER}{{0,2000}})?(?<![.,;:!?)])", form=Form.TEXT),
    Pattern("bitcoin", "CRYPTO", r"\b[13][1-9A-HJ-NP-Za-km-z]{25,34}\b", 0.95, 1.0, ("bitcoin", "btc", "wallet"), Check("base58check", checksums.base58check), form=Form.TEXT),
    Pattern("bitcoin_segwit", "CRYPTO", r"(?i)\b(?:bc1|ltc1)[02-9ac-hj-np-z]{11,71}\b", 0.95, 1.0, ("bitcoin", "btc", "wallet"), Check("bech32", checksums.bech32), form=Form.TEXT),
    Pattern("ethereum", "CRYPTO", r"\b0x[0-9A-Fa-f]{40}\b", 0.8, 0.95, ("ethereum", "eth", "wallet", "address"), Check("varied", ethereum), form=Form.TEXT),
    Pattern(
        "phone_international", "PHONE_NUMBER", r"\+[1-9]", 0.75, 0.95, PHONE_WORDS, Check("country_code", international),
        whole=r"\+[1-9]\d{0,2}[ .-]?(?:\(\d{1,5}\)[ .-]?)?\d{1,12}(?:[ ./-]\d{1,8}){0,6}(?:x\d{1,5})?(?!\w)",
    ),
    Pattern(
        "phone_international_00", "PHONE_NUMBER", r"\b00[1-9]\d", 0.3, 0.85, PHONE_WORDS,
        Check("country_code", lambda number: international(number[2:])),
        whole=r"00[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,12}(?:[ .-]\d{1,8}){0,6}(?!\w)",
    ),
    Pattern(
        "phone_nanp", "PHONE_NUMBER", r"(?:\b1[ .-])?(?:\(\d{3}\) ?|\b\d{3}[ .-])\d{3}[ .-]\d{4}", 0.5, 0.9, PHONE_WORDS,
        Check("nanp", north_american), form=Form.RUN,
        whole=r"(?:1[ .-])?\(?\d{3}\)?[ .-]?\d{3}[ .-]\d{4}(?: ?(?:x|ext\.? ?)\d{1,5})?(?!\w)",
    ),
    Pattern(
        "phone_trunk", "PHONE_NUMBER", r"(?:\(0\d{1,4}\)|\b0\d{1,5})(?: / |[ ./-])\d{2}", 0.45, 0.9, PHONE_WORDS,
        Check("trunk_zero", trunk), whole=r"\(?0\d{1,5}\)?(?: / |[ ./-])\d{2,8}(?:[ .-]\d{2,8}){0,4}(?!\w)",
    ),
    Pattern(
        "phone_grouped", "PHONE_NUMBER", r"\b\d{2,4}[ .-]\d\d", 0.05, 0.7, PHONE_WORDS, Check("length", subscriber),
        whole=r"\d{2,4}(?:[ .-]\d{2,8}){1,5}(?: ?x\d{1,5})?(?!\w)", form=Form.RUN,
    ),
    Pattern("phone_bare", "PHONE_NUMBER", r"\b\d{7,12}\b", 0.02, 0.5, PHONE_WORDS, Check("length", subscriber)),
    *_dates(),
    Pattern("day_of_month", "DATE_TIME", rf"\b{_MONTH}/{_DAY}\b", 0.1, 0.1, form=Form.TEXT),
)  # fmt: skip
