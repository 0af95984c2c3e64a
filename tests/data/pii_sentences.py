"""Writes pii_sentences.jsonl: labelled sentences for the patterns. `python tests/data/pii_sentences.py` (seed 20).

Faker counts some birth dates back from now, so that another run differs in a few of them. Knows nothing of the patterns:
values come from Faker, from the arithmetic below and from pii_kinds.yaml, which has the sentences too. Each row: text,
spans (start, end in code points, entity). The hard negatives (pii_negatives.txt) look like personal data and are none.
"""

import json
import pathlib
import random
import string
import uuid
from collections.abc import Callable

import yaml
from faker import Faker

SEED = 20
HERE = pathlib.Path(__file__).parent
OUT = HERE / "pii_sentences.jsonl"
DIGITS = string.digits
LOCALES = {
    "us": "en_US", "gb": "en_GB", "de": "de_DE", "es": "es_ES", "fr": "fr_FR", "it": "it_IT", "pl": "pl_PL",
    "se": "sv_SE", "fi": "fi_FI",
}  # fmt: skip


def digits(chance: random.Random, count: int, first: str = "123456789") -> str:
    return chance.choice(first) + "".join(chance.choice(DIGITS) for _ in range(count - 1))


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


class Generators:
    """Values of a kind, each with an arithmetic of its own; Faker's by country and name (`de.iban`)."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._fakes = {country: Faker(locale) for country, locale in LOCALES.items()}
        for fake in self._fakes.values():
            fake.seed_instance(SEED)

    def values(self, told: str) -> list[str]:
        """`=nhs*2` two of a kind, anything else itself."""
        if not told.startswith("="):
            return [told]
        name, _, count = told[1:].partition("*")
        country, _, kind = name.rpartition(".")
        make = getattr(self._fakes[country], kind) if country else getattr(self, name)
        return [make() for _ in range(int(count or 1))]

    def card(self) -> str:
        return self._fakes["us"].credit_card_number(self._chance.choice(["visa16", "mastercard", "amex", "discover"]))

    def visa_in_fours(self) -> str:
        return grouped(with_luhn("4" + self._digits(14)), 4, 4, 4, 4)

    def mastercard_with_dashes(self) -> str:
        return grouped(with_luhn("5412" + self._digits(11)), 4, 4, 4, 4, by="-")

    def french_iban_in_fours(self) -> str:
        return grouped(self._fakes["fr"].iban(), 4, 4, 4, 4, 4, 4, 3)

    def french_nir(self) -> str:
        return self._fakes["fr"].ssn().replace(" ", "")

    def french_siret(self) -> str:
        return self._fakes["fr"].siret().replace(" ", "")

    def polish_nip(self) -> str:
        return grouped(self._fakes["pl"].nip(), 3, 3, 2, 2, by="-")

    def npi(self) -> str:
        return "1" + with_luhn("808401" + self._digits(8))[6:]

    def sin(self) -> str:
        return with_luhn(self._digits(8, "1234567"))

    def sin_in_threes(self) -> str:
        return grouped(self.sin(), 3, 3, 3)

    def sin_with_dashes(self) -> str:
        return grouped(self.sin(), 3, 3, 3, by="-")

    def tfn(self) -> str:
        return self._until(lambda: self._digits(9), lambda n: dot(n, [1, 4, 3, 7, 5, 8, 6, 9, 10]) % 11 == 0)

    def tfn_in_threes(self) -> str:
        return grouped(self.tfn(), 3, 3, 3)

    def nhs(self) -> str:
        weights = list(range(10, 1, -1))
        return self._until(lambda: self._digits(10, "49"), lambda n: (dot(n[:9], weights) + int(n[9])) % 11 == 0)

    def nhs_in_groups(self) -> str:
        return grouped(self.nhs(), 3, 3, 4)

    def medicare(self) -> str:
        body = self._digits(8, "23456")
        return body + str(dot(body, [1, 3, 7, 9] * 2) % 10) + "1"

    def medicare_in_groups(self) -> str:
        return grouped(self.medicare(), 4, 5, 1)

    def nric(self) -> str:
        body = self._digits(7)
        return "S" + body + "JZIHGFEDCBA"[dot(body, [2, 7, 6, 5, 4, 3, 2]) % 11]

    def thai(self) -> str:
        weights = list(range(13, 1, -1))
        return self._until(
            lambda: self._chance.choice("123") + self._chance.choice(["10", "20", "34", "50", "83"]) + self._digits(10),
            lambda n: (
                (dot(n[:12], weights) + int(n[12])) % 11 in (0, 1)
                and (11 - dot(n[:12], weights) % 11) % 10 == int(n[12])
            ),
        )

    def thai_with_dashes(self) -> str:
        return grouped(self.thai(), 1, 4, 5, 2, 1, by="-")

    def tckn(self) -> str:
        return self._until(
            lambda: self._digits(11),
            lambda n: (
                (7 * sum(map(int, n[0:9:2])) - sum(map(int, n[1:8:2]))) % 10 == int(n[9])
                and sum(map(int, n[:10])) % 10 == int(n[10])
            ),
        )

    def rrn(self) -> str:
        return f"{self._born()}-{self._chance.choice('12')}{self._digits(6)}"

    def south_african(self) -> str:
        return with_luhn(self._born() + self._digits(4) + "08")

    def eleven_digits(self) -> str:
        return self._digits(11)

    def bvn(self) -> str:
        return "22" + self._digits(9)

    def github_token(self) -> str:
        return "ghp_" + self._signs(string.ascii_letters + DIGITS, 36)

    def anthropic_key(self) -> str:
        return "sk-ant-api03-" + self._signs(string.ascii_letters + DIGITS, 80)

    def slack_token(self) -> str:
        return "xoxb-123456789012-" + self._signs(string.ascii_letters, 24)

    def google_key(self) -> str:
        return "AIza" + self._signs(string.ascii_letters + DIGITS, 35)

    def _born(self) -> str:
        chance = self._chance
        return f"{chance.randint(50, 99):02}{chance.randint(1, 12):02}{chance.randint(1, 28):02}"

    def _digits(self, count: int, first: str = "123456789") -> str:
        return digits(self._chance, count, first)

    def _signs(self, signs: str, count: int) -> str:
        return "".join(self._chance.choices(signs, k=count))

    def _until(self, make: Callable[[], str], holds: Callable[[str], bool]) -> str:
        """The first of many made at random that holds."""
        while True:
            made = make()
            if holds(made):
                return made


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
    rows += (HERE / "pii_negatives.txt").read_text().splitlines()
    return rows


def main() -> None:
    chance = random.Random(SEED)
    rows: list[dict[str, object]] = []
    generators = Generators(chance)
    for entity, kind in yaml.safe_load((HERE / "pii_kinds.yaml").read_text()).items():
        for value in [value for told in kind["values"] for value in generators.values(told)]:
            for sentence in kind["sentences"]:
                text = sentence.replace("{}", value)
                start = text.index(value)
                rows.append({"text": text, "spans": [[start, start + len(value), entity]]})
    rows += [{"text": text, "spans": []} for text in negatives(chance)]
    OUT.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


if __name__ == "__main__":
    main()
