"""Check digits against published examples, and against every change of one digit."""

import pytest

from extproc.detection import checksums
from extproc.detection.patterns import (
    asia,
    au,
    ca,
    de,
    es,
    fr,
    general,
    india,
    it,
    nordic,
    pl,
    sg,
    turkey_africa,
    uk,
    us,
)

VALID = [
    (checksums.luhn, "4111111111111111"),
    (checksums.iban, "DE89370400440532013000"),
    (checksums.iban, "GB82WEST12345698765432"),
    (checksums.verhoeff, "2363"),
    (checksums.mrz, "L898902C36"),
    (general.issued_card, "378282246310005"),
    (us.routing, "021000021"),
    (us.provider, "1234567893"),
    (us.dea, "AB1234563"),
    (us.vin, "1M8GDM9AXKP042788"),
    (uk.nhs, "9434765919"),
    (uk.vat, "GB980780684"),
    (ca.social_insurance, "130692544"),
    (au.tax_file, "876543210"),
    (au.business, "51824753556"),
    (au.company, "004085616"),
    (au.medicare, "2123456701"),
    (india.aadhaar, "234123412346"),
    (india.gstin, "27AAPFU0939F1ZV"),
    (sg.nric, "S1234567D"),
    (sg.entity, "201434292D"),
    (de.tax_id, "36574261809"),
    (de.vat, "DE136695976"),
    (de.pension, "15070649C103"),
    (de.health, "A123456780"),
    (es.personal, "12345678Z"),
    (es.foreigner, "X1234567L"),
    (es.company, "A58818501"),
    (fr.social, "255081416802538"),
    (fr.company, "732829320"),
    (fr.vat, "FR83404833048"),
    (it.fiscal, "RSSMRA85T10A562S"),
    (it.vat, "00743110157"),
    (pl.pesel, "44051401359"),
    (pl.tax, "5260250274"),
    (pl.identity, "ABA300000"),
    (nordic.person, "8112189876"),
    (nordic.organisation, "5560360793"),
    (nordic.hetu_text, "131052-308T"),
    (nordic.business, "20774740"),
    (asia.korean_business, "1048656659"),
    (asia.thai, "1234567890121"),
    (turkey_africa.turkish, "10000000146"),
    (turkey_africa.turkish_tax, "4540536920"),
    (turkey_africa.south_african, "8001015009087"),
]


@pytest.mark.parametrize(("holds", "number"), VALID, ids=lambda value: getattr(value, "__qualname__", value))
def test_a_published_number_holds(holds, number: str) -> None:  # type: ignore[no-untyped-def]
    assert holds(number)


@pytest.mark.parametrize(("holds", "number"), VALID, ids=lambda value: getattr(value, "__qualname__", value))
def test_its_check_character_is_not_just_any(holds, number: str) -> None:  # type: ignore[no-untyped-def]
    """Another last character (for those that check elsewhere: another digit anywhere) fails at least once in two."""
    digits = "0123456789"
    changed = [
        number[:at] + digit + number[at + 1 :]
        for at, old in enumerate(number)
        if old.isdigit()
        for digit in digits
        if digit != old
    ]
    assert sum(map(holds, changed)) < len(changed) / 2


def test_every_single_digit_error_of_a_card_or_an_iban_is_seen() -> None:
    for holds, number in ((checksums.luhn, "4111111111111111"), (checksums.iban, "DE89370400440532013000")):
        for at, old in enumerate(number):
            for digit in "0123456789":
                if old.isdigit() and digit != old:
                    assert not holds(number[:at] + digit + number[at + 1 :])


@pytest.mark.parametrize(
    ("holds", "address"),
    [
        (checksums.base58check, "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
        (checksums.bech32, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
        (checksums.bech32, "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0"),
    ],
)
def test_wallet_addresses_of_the_standards(holds, address: str) -> None:  # type: ignore[no-untyped-def]
    assert holds(address)
    assert not holds(address[:-1] + ("a" if address[-1] != "a" else "c"))
