"""Check digits and structures that more than one kind of number uses.

Every function takes a number without its separators, letters in upper case, and says whether it holds; none raises.
What only one country uses stands with that country's patterns in `patterns/`.
"""

from __future__ import annotations

import binascii
import calendar
import hashlib
from collections.abc import Sequence

_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)

# ISO 13616 registry (SWIFT): length of the whole IBAN by country.
IBAN_LENGTHS = {
    "AD": 24,
    "AE": 23,
    "AL": 28,
    "AT": 20,
    "AZ": 28,
    "BA": 20,
    "BE": 16,
    "BG": 22,
    "BH": 22,
    "BI": 27,
    "BR": 29,
    "BY": 28,
    "CH": 21,
    "CR": 22,
    "CY": 28,
    "CZ": 24,
    "DE": 22,
    "DJ": 27,
    "DK": 18,
    "DO": 28,
    "EE": 20,
    "EG": 29,
    "ES": 24,
    "FI": 18,
    "FK": 18,
    "FO": 18,
    "FR": 27,
    "GB": 22,
    "GE": 22,
    "GI": 23,
    "GL": 18,
    "GR": 27,
    "GT": 28,
    "HN": 28,
    "HR": 21,
    "HU": 28,
    "IE": 22,
    "IL": 23,
    "IQ": 23,
    "IS": 26,
    "IT": 27,
    "JO": 30,
    "KW": 30,
    "KZ": 20,
    "LB": 28,
    "LC": 32,
    "LI": 21,
    "LT": 20,
    "LU": 20,
    "LV": 21,
    "LY": 25,
    "MC": 27,
    "MD": 24,
    "ME": 22,
    "MK": 19,
    "MN": 20,
    "MR": 27,
    "MT": 31,
    "MU": 30,
    "NI": 28,
    "NL": 18,
    "NO": 15,
    "OM": 23,
    "PK": 24,
    "PL": 28,
    "PS": 29,
    "PT": 25,
    "QA": 29,
    "RO": 24,
    "RS": 22,
    "RU": 33,
    "SA": 24,
    "SC": 31,
    "SD": 18,
    "SE": 24,
    "SI": 19,
    "SK": 24,
    "SM": 27,
    "SO": 23,
    "ST": 25,
    "SV": 28,
    "TL": 23,
    "TN": 24,
    "TR": 26,
    "UA": 29,
    "VA": 22,
    "VG": 24,
    "XK": 20,
    "YE": 30,
}

# Verhoeff (1969): multiplication in the dihedral group D5, and the permutation of each position.
_VERHOEFF_PRODUCT = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (1, 2, 3, 4, 0, 6, 7, 8, 9, 5),
    (2, 3, 4, 0, 1, 7, 8, 9, 5, 6),
    (3, 4, 0, 1, 2, 8, 9, 5, 6, 7),
    (4, 0, 1, 2, 3, 9, 5, 6, 7, 8),
    (5, 9, 8, 7, 6, 0, 4, 3, 2, 1),
    (6, 5, 9, 8, 7, 1, 0, 4, 3, 2),
    (7, 6, 5, 9, 8, 2, 1, 0, 4, 3),
    (8, 7, 6, 5, 9, 3, 2, 1, 0, 4),
    (9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
)
_VERHOEFF_PERMUTATION = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (1, 5, 7, 6, 2, 8, 3, 0, 9, 4),
    (5, 8, 0, 3, 7, 9, 6, 1, 4, 2),
    (8, 9, 1, 6, 0, 4, 3, 5, 2, 7),
    (9, 4, 5, 3, 1, 2, 6, 8, 7, 0),
    (4, 2, 8, 6, 5, 7, 3, 9, 0, 1),
    (2, 7, 9, 3, 8, 0, 6, 4, 1, 5),
    (7, 0, 4, 6, 9, 1, 3, 2, 5, 8),
)

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32_CONSTANTS = (1, 0x2BC830A3)  # BIP 173 and BIP 350 (bech32m)

_ALPHABET_36 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def luhn(number: str) -> bool:
    """ISO/IEC 7812-1 annex B: the last digit makes the sum, with every second digit doubled, a multiple of ten."""
    digits = [ord(digit) - 48 for digit in reversed(number)]
    return (sum(digits[::2]) + sum([_DOUBLED[digit] for digit in digits[1::2]])) % 10 == 0


def varied(number: str) -> bool:
    """Not one digit over and over: such numbers pass many checksums, and nobody has them."""
    return number.count(number[0]) != len(number)


def weighted_sum(number: str, weights: Sequence[int]) -> int:
    """Sum of digits times weights; digits beyond the weights count nothing."""
    return sum([(ord(digit) - 48) * weight for digit, weight in zip(number, weights, strict=False)])


def iban(number: str) -> bool:
    """ISO 13616: the length of its country, and mod 97-10 (ISO 7064) of the rearranged number is 1."""
    return len(number) == IBAN_LENGTHS.get(number[:2]) and mod_97_10(number[4:] + number[:4])


def mod_97_10(number: str) -> bool:
    """ISO 7064 mod 97-10, letters as 10 to 35."""
    return int("".join([str(int(character, 36)) for character in number])) % 97 == 1


def mod_11_10(number: str) -> bool:
    """ISO 7064 hybrid mod 11,10, as German tax ids and VAT numbers use it."""
    product = 10
    for digit in number[:-1]:
        product = ((ord(digit) - 48 + product) % 10 or 10) * 2 % 11
    return (product + ord(number[-1]) - 48) % 10 == 1


def luhn_mod_36(number: str) -> bool:
    """Luhn over the digits and letters, as the Indian GSTIN uses it: doubled values split into quotient and rest."""
    total = 0
    for position, character in enumerate(reversed(number)):
        value = _ALPHABET_36.index(character) * (1 + position % 2)
        total += value // 36 + value % 36
    return total % 36 == 0


def verhoeff(number: str) -> bool:
    """Verhoeff's dihedral check (J. Verhoeff, Error Detecting Decimal Codes, 1969)."""
    state = 0
    for position, digit in enumerate(reversed(number)):
        state = _VERHOEFF_PRODUCT[state][_VERHOEFF_PERMUTATION[position % 8][ord(digit) - 48]]
    return state == 0


def mrz_digit(text: str) -> int:
    """ICAO 9303 part 3: the check digit over digits, letters (10 to 35) and fillers (0), weights 7, 3, 1."""
    values = (0 if character == "<" else int(character, 36) for character in text)
    return sum(value * (7, 3, 1)[position % 3] for position, value in enumerate(values)) % 10


def mrz(number: str) -> bool:
    """A document number followed by its ICAO 9303 check digit."""
    return number[-1].isdigit() and mrz_digit(number[:-1]) == int(number[-1])


def calendar_date(year: int, month: int, day: int) -> bool:
    """Such a day exists (Gregorian calendar)."""
    return 1 <= month <= 12 and 1 <= day <= calendar.monthrange(max(year, 1), month)[1]


def day_of_century(year: int, month: int, day: int) -> bool:
    """Such a day exists in this or the last century; `year` has two digits."""
    return calendar_date(1900 + year, month, day) or calendar_date(2000 + year, month, day)


def base58check(address: str) -> bool:
    """Bitcoin's base58check: four bytes of a double SHA-256 end the decoded 25 bytes."""
    value = 0
    for character in address:
        index = _BASE58.find(character)
        if index < 0:
            return False
        value = value * 58 + index
    if value.bit_length() > 200:
        return False
    decoded = value.to_bytes(25, "big")
    return hashlib.sha256(hashlib.sha256(decoded[:-4]).digest()).digest()[:4] == decoded[-4:]


def bech32(address: str) -> bool:
    """BIP 173 and BIP 350: the checksum of a segregated-witness address; upper and lower case never mix."""
    if address not in (address.lower(), address.upper()):
        return False
    prefix, _, data = address.lower().rpartition("1")
    values = [_BECH32.find(character) for character in data]
    if -1 in values:
        return False
    spread = [ord(character) >> 5 for character in prefix] + [0] + [ord(character) & 31 for character in prefix]
    state = 1
    for value in spread + values:
        top, state = state >> 25, (state & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_BECH32_GENERATOR):
            state ^= generator if top >> bit & 1 else 0
    return state in _BECH32_CONSTANTS


def base64url_json(part: str) -> bool:
    """RFC 7515: a part of a compact JWS that decodes to something in braces."""
    try:
        decoded = binascii.a2b_base64(part.replace("-", "+").replace("_", "/") + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        return False
    return decoded.startswith(b"{") and decoded.rstrip().endswith(b"}")
