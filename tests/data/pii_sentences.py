"""Writes pii_sentences.jsonl: labelled sentences for the patterns. `python tests/data/pii_sentences.py` (seed 20).

Faker counts some birth dates back from now, so that another run differs in a few of them. Knows nothing of the patterns: values come from Faker and python's own arithmetic below, sentences are written here. Each row:
text, spans (start, end in code points, entity). The hard negatives look like personal data and are none.
"""

import json
import pathlib
import random
import string
import uuid

from faker import Faker

SEED = 20
OUT = pathlib.Path(__file__).with_name("pii_sentences.jsonl")
DIGITS = string.digits


def digits(chance: random.Random, count: int, first: str = "123456789") -> str:
    return chance.choice(first) + "".join(chance.choice(DIGITS) for _ in range(count - 1))


def until(chance: random.Random, make, holds) -> str:  # type: ignore[no-untyped-def]
    """The first of many made at random that holds: an arithmetic of its own for each kind below."""
    while True:
        made = make()
        if holds(made):
            return made


def luhn_total(number: str) -> int:
    return sum(int(d) if i % 2 == 0 else sum(divmod(int(d) * 2, 10)) for i, d in enumerate(reversed(number)))


def with_luhn(body: str) -> str:
    return next(body + d for d in DIGITS if luhn_total(body + d) % 10 == 0)


def dot(number: str, weights: list[int]) -> int:
    return sum(int(d) * w for d, w in zip(number, weights, strict=False))


def grouped(number: str, *sizes: int, by: str = " ") -> str:
    parts, at = [], 0
    for size in sizes:
        parts.append(number[at : at + size])
        at += size
    return by.join(parts)


def values(chance: random.Random) -> dict[str, tuple[list[str], list[str]]]:
    """Entity: (three values each, sentences with a place for one)."""
    fakes = {
        name: Faker(name)
        for name in (
            "en_US",
            "en_GB",
            "de_DE",
            "es_ES",
            "fr_FR",
            "it_IT",
            "pl_PL",
            "sv_SE",
            "fi_FI",
            "ko_KR",
            "tr_TR",
            "en_CA",
            "en_AU",
            "en_IN",
        )
    }
    for fake in fakes.values():
        fake.seed_instance(SEED)
    us, gb, de, es, fr, it, pl, se, fi = (
        fakes[n] for n in ("en_US", "en_GB", "de_DE", "es_ES", "fr_FR", "it_IT", "pl_PL", "sv_SE", "fi_FI")
    )

    def some(make, count: int = 4) -> list[str]:  # type: ignore[no-untyped-def]
        return [make() for _ in range(count)]

    def tfn() -> str:
        return until(chance, lambda: digits(chance, 9), lambda n: dot(n, [1, 4, 3, 7, 5, 8, 6, 9, 10]) % 11 == 0)

    def nhs() -> str:
        return until(
            chance,
            lambda: digits(chance, 10, "49"),
            lambda n: (dot(n[:9], list(range(10, 1, -1))) + int(n[9])) % 11 == 0,
        )

    def thai() -> str:
        return until(
            chance,
            lambda: chance.choice("123") + chance.choice(["10", "20", "34", "50", "83"]) + digits(chance, 10),
            lambda n: (
                (dot(n[:12], list(range(13, 1, -1))) + int(n[12])) % 11 in (0, 1)
                and (11 - dot(n[:12], list(range(13, 1, -1))) % 11) % 10 == int(n[12])
            ),
        )

    def tckn() -> str:
        return until(
            chance,
            lambda: digits(chance, 11),
            lambda n: (
                (7 * sum(map(int, n[0:9:2])) - sum(map(int, n[1:8:2]))) % 10 == int(n[9])
                and sum(map(int, n[:10])) % 10 == int(n[10])
            ),
        )

    def nric() -> str:
        body = digits(chance, 7)
        return "S" + body + "JZIHGFEDCBA"[dot(body, [2, 7, 6, 5, 4, 3, 2]) % 11]

    def medicare() -> str:
        body = digits(chance, 8, "23456")
        return body + str(dot(body, [1, 3, 7, 9] * 2) % 10) + "1"

    def born() -> str:
        return f"{chance.randint(50, 99):02}{chance.randint(1, 12):02}{chance.randint(1, 28):02}"

    def card() -> str:
        return us.credit_card_number(chance.choice(["visa16", "mastercard", "amex", "discover"]))

    sin = lambda: with_luhn(digits(chance, 8, "1234567"))  # noqa: E731
    return {
        "CREDIT_CARD": ([*some(card), grouped(with_luhn("4" + digits(chance, 14)), 4, 4, 4, 4), grouped(with_luhn("5412" + digits(chance, 11)), 4, 4, 4, 4, by="-")],
                        ["Please charge {}.", "Meine Kreditkarte {} wurde abgelehnt", "card no: {} exp 04/27", '{{"pan": "{}"}}']),
        "IBAN_CODE": (some(de.iban) + some(gb.iban, 2) + [grouped(fr.iban(), 4, 4, 4, 4, 4, 4, 3)], ["Transfer it to {} today.", "IBAN: {}", "Bitte auf {} überweisen"]),
        "EMAIL_ADDRESS": (some(us.email) + some(de.company_email, 2) + ["mary.o+news@sub.example.co.uk"], ["Write to {}.", "mailto:{}", "Contact <{}> for details", "{}, thanks"]),
        "PHONE_NUMBER": (["+1 (212) 555-0187", "(415) 555-0132", "212-555-0144", "+44 20 7946 0958", "+49 30 901820", "06 12 34 56 78", "+33 1 70 18 99 00", "020 7946 0321", "+81 3-1234-5678", "0171 2345678"],
                         ["Call me at {} tonight", "Tel. {}", "Mein Telefon: {}", "Appelez le {} svp"]),
        "IP_ADDRESS": (some(us.ipv4) + some(us.ipv6, 3) + ["fe80::1", "10.0.0.0/8"], ["Request from {} was refused", "ping {} fails", "The server {} is down."]),
        "MAC_ADDRESS": (some(us.mac_address), ["Device {} joined the network", "MAC {}"]),
        "US_SSN": (["536-90-4399", "219 09 9998", "667-12-3456", "078-05-1127"], ["My SSN is {}.", "Social Security Number: {}", "ssn={}"]),
        "US_ITIN": (["912-70-1234", "978-88-4321"], ["ITIN {} on the W-7", "His taxpayer id is {}"]),
        "US_NPI": (["1" + with_luhn("80840" + "1" + digits(chance, 8))[6:] for _ in range(3)], ["NPI: {}", "The provider number is {}"]),
        "US_PASSPORT": (["C03004786", "512345678"], ["US passport number {}", "my passport is {}"]),
        "US_DRIVER_LICENSE": (["D1234567", "S530460053960", "W42679821"], ["Driver's license: {}", "my drivers license number is {}"]),
        "ABA_ROUTING_NUMBER": (["021000021", "121000358", "026009593"], ["Routing number {} at the bank", "ABA {}"]),
        "UK_NHS": ([nhs(), grouped(nhs(), 3, 3, 4), grouped(nhs(), 3, 3, 4)], ["NHS number {}", "The patient's NHS no. is {}."]),
        "UK_NINO": (["AB123456C", "PP 12 34 56 A", "JG103759A"], ["National Insurance: {}", "My NI number is {}"]),
        "UK_DRIVING_LICENCE": (["JONES710238HD9KL", "SMITH654129AB9XY"], ["DVLA licence {}", "Driving licence number {}"]),
        "UK_POSTCODE": (["SW1A 2AA", "M2 5BQ", "EH1 1YZ"], ["The postcode is {}.", "Our address: 10 High Street, {}"]),
        "UK_VEHICLE_REGISTRATION": (["BD51 SMR", "LN14HGT", "YK21 ABX"], ["My car registration is {}", "The vehicle {} was parked there"]),
        "CA_SIN": ([sin(), grouped(sin(), 3, 3, 3), grouped(sin(), 3, 3, 3, by="-")], ["My SIN is {}", "Social insurance number: {}", "mon NAS est le {}"]),
        "CA_POSTAL_CODE": (["K1A 0B1", "H3Z 2Y7"], ["Postal code {}", "Ship it to Ottawa, {}"]),
        "AU_TFN": ([tfn(), grouped(tfn(), 3, 3, 3)], ["TFN {}", "my tax file number is {}"]),
        "AU_ABN": (["51 824 753 556", "53004085616"], ["ABN {}", "Our Australian Business Number is {}"]),
        "AU_MEDICARE": ([medicare(), grouped(medicare(), 4, 5, 1)], ["Medicare card {}", "medicare no: {}"]),
        "IN_AADHAAR": (["2341 2341 2346", "499118665246"], ["Aadhaar {}", "my aadhaar number is {}"]),
        "IN_PAN": (["ABCPE1234F", "BNZAA2318J"], ["PAN {}", "Income tax PAN card: {}"]),
        "IN_GSTIN": (["27AAPFU0939F1ZV", "29AAGCB7383J1Z4"], ["GSTIN {}", "GST no {}"]),
        "SG_NRIC_FIN": ([nric(), nric()], ["NRIC {}", "her identity card is {}"]),
        "DE_TAX_ID": (["36574261809", "65929970489"], ["Steuer-ID {}", "Meine Identifikationsnummer lautet {}"]),
        "DE_VAT_ID": (["DE136695976", "DE 129 273 398"], ["USt-IdNr. {}", "Umsatzsteuer-ID: {}"]),
        "DE_SOCIAL_SECURITY": (["15070649C103"], ["Rentenversicherungsnummer {}", "Meine SV-Nummer: {}"]),
        "DE_KFZ": (["B-AB 1234", "M XY 999"], ["Kennzeichen {}", "Das Fahrzeug {} parkt falsch"]),
        "ES_NIF": (some(es.nif), ["Mi DNI es {}", "NIF: {}"]),
        "ES_NIE": (some(es.nie, 3), ["NIE {}", "número de extranjero {}"]),
        "FR_NIR": (some(lambda: fr.ssn().replace(" ", ""), 3), ["Numéro de sécurité sociale {}", "NIR : {}"]),
        "FR_SIRET": (some(lambda: fr.siret().replace(" ", ""), 3), ["SIRET {}", "siret de l'entreprise : {}"]),
        "IT_FISCAL_CODE": (some(it.ssn, 3), ["Codice fiscale {}", "C.F. {}"]),
        "IT_VAT_CODE": (["07643520567", "00743110157"], ["Partita IVA {}", "P.IVA: {}"]),
        "PL_PESEL": (some(pl.pesel, 3), ["PESEL {}", "Mój numer PESEL to {}"]),
        "PL_NIP": (some(lambda: grouped(pl.nip(), 3, 3, 2, 2, by="-"), 2), ["NIP {}", "nip firmy: {}"]),
        "SE_PERSONNUMMER": (some(se.ssn, 3), ["Personnummer {}", "mitt personnr är {}"]),
        "FI_PERSONAL_IDENTITY_CODE": (some(fi.ssn, 3), ["Henkilötunnus {}", "hetu: {}"]),
        "KR_RRN": ([f"{born()}-{chance.choice('12')}{digits(chance, 6)}" for _ in range(3)], ["주민등록번호 {}", "주민번호는 {}입니다"]),
        "KR_DRIVER_LICENSE": (["11-22-123456-78", "26-05-654321-10"], ["운전면허 {}", "Korean driver's license {}"]),
        "TH_TNIN": ([thai(), grouped(thai(), 1, 4, 5, 2, 1, by="-")], ["เลขประจำตัวประชาชน {}", "Thai national ID {}"]),
        "TR_NATIONAL_ID": ([tckn(), tckn()], ["TC kimlik no {}", "TCKN: {}"]),
        "TR_LICENSE_PLATE": (["34 ABC 123", "06 AB 1234"], ["Plaka {}", "Araç {} park etti"]),
        "ZA_ID_NUMBER": ([with_luhn(born() + digits(chance, 4) + "08") for _ in range(3)], ["SA ID number {}", "My ID number is {}"]),
        "NG_NIN": ([digits(chance, 11) for _ in range(2)], ["My NIN is {}", "National Identification Number: {}"]),
        "NG_BVN": (["22" + digits(chance, 9) for _ in range(2)], ["BVN {}", "bank verification number {}"]),
        "PH_TIN": (["123-456-789-000", "234-567-891"], ["BIR TIN {}", "My TIN is {}"]),
        "PH_SSS": (["34-1234567-8"], ["SSS number {}", "sss no. {}"]),
        "CRYPTO": (["1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", "0x52908400098527886E0F7030069857D2E4169EE7"], ["Send BTC to {}", "wallet: {}"]),
        "DATE_OF_BIRTH": (["12 March 1987", "1990-04-23", "07/30/1964", "23.11.1978"], ["She was born on {}", "DOB: {}", "geboren am {}", "né le {}"]),
        "API_KEY": (["AKIAIOSFODNN7EXAMPLE", "ghp_" + "".join(chance.choices(string.ascii_letters + DIGITS, k=36)), "sk-ant-api03-" + "".join(chance.choices(string.ascii_letters + DIGITS, k=80)), "xoxb-123456789012-" + "".join(chance.choices(string.ascii_letters, k=24)), "AIza" + "".join(chance.choices(string.ascii_letters + DIGITS, k=35))], ["Use {} here", "export TOKEN_X {}"]),
        "PASSWORD": (["hunter2!xK", "Tr0ub4dor&3"], ["password: {}", "my password is {}", "pwd={}"]),
        "JWT": (["eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"], ["session {} expired", "cookie {}"]),
        "VIN": (["1HGCM82633A004352", "1M8GDM9AXKP042788"], ["VIN {}", "the vehicle identification number is {}"]),
        "DE_PASSPORT": (["C01X00T47"], ["Reisepass {}", "German passport no. {}"]),
        "IN_PASSPORT": (["J8369854", "T3569071"], ["Indian passport {}", "passport number: {}"]),
    }  # fmt: skip


def negatives(chance: random.Random) -> list[str]:
    """What looks like personal data and is none."""
    rows = []
    for _ in range(6):
        rows += [
            f"Order {digits(chance, 9)} has shipped",
            f"Order number: #{digits(chance, 6)}-{digits(chance, 4)}",
            f"Upgrade to version {chance.randint(1, 20)}.{chance.randint(0, 99)}.{chance.randint(0, 99)} first",
            f"Run id {uuid.UUID(int=chance.getrandbits(128), version=4)} finished",
            f"commit {chance.getrandbits(160):040x}",
            f"sha256:{chance.getrandbits(256):064x}",
            f"The result was {chance.random() * 1000:.12f} on average",
            f"pi is 3.{digits(chance, 16)} or so",
            f"ISBN 978-0-{chance.randint(100, 999)}-{chance.randint(10000, 99999)}-{chance.randint(0, 9)} is out of print",
            f"The meeting is on {chance.randint(1, 12):02}/{chance.randint(1, 28):02}/2025 at 14:30",
            f"Revenue grew to {chance.randint(1, 99)},{chance.randint(100, 999)},{chance.randint(100, 999)} dollars",
            f"Timestamp {1_600_000_000 + chance.randint(0, 10**8)} was logged",
            f"Invoice INV-{chance.randint(2019, 2025)}-{digits(chance, 5)} is due",
            f"The tracking code {digits(chance, 22)} is wrong",
            f"x = [{', '.join(str(chance.randint(0, 255)) for _ in range(9))}]",
            f"Rows {digits(chance, 4)} to {digits(chance, 4)} of {digits(chance, 6)}",
            f"error 0x{chance.getrandbits(32):08X} at 0x{chance.getrandbits(48):012x}",
            f"color #{chance.getrandbits(24):06x} and #{chance.getrandbits(24):06x}",
        ]
    rows += [
        "std::vector<int> v; a::b::c();", "The ratio is 12:30:45 by weight", "2 + 2 = 4 and 10 / 5 = 2", "In 1984 Orwell's 1984 sold well.",
        "password is required for this page", "Please reset your password: it has expired", "The secret: patience", "key: value pairs",
        "def get_token(token: str) -> None:", "password = os.environ['PASSWORD']", "api_key=${API_KEY}", "@decorator def f(): pass",
        "Follow @someone on the site", "image@2x.png is missing", "See section 12.3.4 and table 5.6", "GPT-4 scored 86.4 on MMLU",
        "RFC 7519 and ISO 27001 apply", "the Boeing 747-400 and Airbus A320-200", "UTF-8, SHA-256 and AES-128", "Chapter 3, page 123",
        "int x = 1234567890;", "The year 2024-2025 budget", "Score 21-19, 18-21, 21-17", "Psalm 119:105 is short", "Bus 42 leaves at 10:15",
        "The temperature fell from 12.5 to 3.75", "Windows 10.0.19041 build", "Apollo 11 landed on July 20, 1969", "HTTP 404 and 503 errors",
        "E = mc^2 and F = ma", "ports 8000, 8001 and 8002", "1 2 3 4 5 6 7 8 9 10 11 12", "sk-learn is a library", "AKIA is a prefix",
    ]  # fmt: skip
    return rows


def main() -> None:
    chance = random.Random(SEED)
    rows: list[dict[str, object]] = []
    for entity, (found, sentences) in values(chance).items():
        for value in found:
            for sentence in sentences:
                text = sentence.replace("{{", "{").replace("}}", "}").replace("{}", "\0").replace("\0", value)
                start = text.index(value)
                rows.append({"text": text, "spans": [[start, start + len(value), entity]]})
    rows += [{"text": text, "spans": []} for text in negatives(chance)]
    OUT.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


if __name__ == "__main__":
    main()
