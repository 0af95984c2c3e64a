"""What the guard compares of a text: numbers, units, dates, quotations, code, names, words in order. Pure.

Everything is found in one pass over the words; a text of 2 KB takes well under a millisecond, a usual question some
30 us (tests/benchmarks/semantic_speed.py).
"""

from __future__ import annotations

import re
import unicodedata

from msgspec import Struct

from extproc.detection.near_misses import words

MOST_CHARS = 4000
"""Of longer texts nothing is compared: they never pass."""

_TOKEN = re.compile(
    r"""(?P<code>`[^`]+`|https?://\S+|[\w.+-]+@[\w-]+\.[\w.]+|(?<![\w/])(?:~|\.{1,2})?/[\w.-][\w./-]*|--[\w-]+|\b\w+\([^()\s]*\)
        |\b[A-Za-z]+(?:_[A-Za-z0-9]+)+\b|\b[a-z]+[A-Z]\w*\b|\b\w+\.(?:py|js|ts|java|json|ya?ml|txt|csv|sh|go|rs|html|css|md|cfg|conf|toml|ini|sql)\b
        |(?:[<>=!]=|[-=]>|&&|\|\||::|[{}\[\]<>=^~\\$\#|]))
    |(?P<number>\d[\d,.:/-]*\d|\d)(?P<suffix>[^\W\d]*)
    |(?P<word>[^\W\d_]+(?:['\u2019.&-][^\W\d_]+)*['\u2019]?[\w]*)
    |(?P<sign>[+*/%€$£°])
    |(?P<end>[.!?:;\n])""",
    re.VERBOSE,
)
_QUOTED = re.compile(
    r'"([^"]{1,400})"|“([^”]{1,400})”|«([^»]{1,400})»|(?<!\w)[\'\u2018]([^\'\u2019]{2,400})[\'\u2019](?!\w)'
)
_AMOUNT = r"\s+(?:\d|two|three|four|five|six|seven|eight|nine|ten|twenty|fifty|hundred|a\s)"
_AT_LEAST = re.compile(
    r"\b(?:at least|no (?:less|fewer) than|minimum of|over|(?<!no )(?:more|larger|bigger|greater|longer) than)"
    rf"{_AMOUNT}|\d \w+ or more\b"
)
_AT_MOST = re.compile(
    r"\b(?:at most|no (?:more|longer) than|up to|maximum of|under|(?<!no )(?:less|fewer|smaller|shorter) than)"
    rf"{_AMOUNT}|\d \w+ or (?:less|fewer)\b"
)
_NO_MORE_THAN = re.compile(r"\bno (?:more|less|fewer|later) than\b")
_SIGNS = {"%": "percent", "€": "euro", "$": "dollar", "£": "sterling", "°": "degree"}
_TWO_MEANINGS = frozenset({"may", "march", "second"})
_DETERMINERS = frozenset({"the", "a", "an", "my", "your", "his", "her", "its", "their", "our"})
_ORDINAL_SUFFIXES = ("st", "nd", "rd", "th")


class Question(Struct, frozen=True):
    """What kind of answer is asked for. `strong` kinds are never each other."""

    kind: str
    strong: bool


class Features(Struct, frozen=True):
    """`order` has the words that matter, in lower case and as they come; `roles` the preposition before each."""

    numbers: tuple[str, ...]
    units: frozenset[str]
    dates: dict[int, frozenset[str]]
    quoted: frozenset[str]
    code: tuple[str, ...]
    names: frozenset[str]
    words: frozenset[str]
    order: tuple[str, ...]
    roles: dict[str, str]
    symmetric: bool
    passive: bool
    negations: int
    quantities: frozenset[str]
    duty: bool
    liberty: bool
    question: Question
    language: str
    script: str
    folded: str
    title: bool


def features(text: str) -> Features:
    return _Reader(text).features()


class _Reader:
    """One pass over one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.folded = " ".join(text.lower().split()).replace("\u2019", "'")
        self.numbers: list[str] = []
        self.units: set[str] = set()
        self.dates: dict[int, set[str]] = {}
        self.code: list[str] = []
        self.capitals: list[str] = []
        self.plain: list[str] = []
        self.order: list[str] = []
        self.roles: dict[str, str] = {}
        self._role = ""
        self._starts = True
        self._number_open = False
        self._turning = False
        self._tens_open = False

    def features(self) -> Features:
        quoted = frozenset(
            " ".join(next(part for part in found.groups() if part).lower().split()).strip(" .?!,")
            for found in _QUOTED.finditer(self.text)
        )
        for token in _TOKEN.finditer(self.text):
            self._take(token)
        plain = self.plain
        present = frozenset(plain)
        inner = [word for word in plain if word not in words.STOP_WORDS]
        title = len(self.capitals) > 3 and len(self.capitals) >= 0.7 * len(inner)
        return Features(
            numbers=tuple(sorted(self.numbers)),
            units=frozenset(self.units),
            dates={row: frozenset(found) for row, found in self.dates.items()},
            quoted=quoted,
            code=tuple(sorted(self.code)),
            names=frozenset() if title else frozenset(self.capitals),
            words=present,
            order=tuple(self.order),
            roles=self.roles,
            symmetric=not words.SYMMETRIC.isdisjoint(present),
            passive="by" in present,
            negations=sum(word in words.NEGATIONS for word in plain) - len(_NO_MORE_THAN.findall(self.folded)),
            quantities=self._quantities(present),
            duty=not words.DUTIES.isdisjoint(present),
            liberty=not words.LIBERTIES.isdisjoint(present) and "optional" not in present,
            question=_question(plain, self.folded),
            language=_language(plain),
            script=_script(self.text),
            folded=self.folded,
            title=title,
        )

    def _take(self, token: re.Match[str]) -> None:
        kind = token.lastgroup
        if kind == "word":
            self._word(token["word"])
        elif kind in ("number", "suffix"):
            self._number(token["number"], token["suffix"])
        elif kind == "code":
            self.code.append(token["code"].strip("`"))
            self._matters(token["code"].strip("`").lower())
        elif kind == "sign":
            self._sign(token["sign"])
        else:
            self._starts, self._role, self._turning = True, "", False

    def _sign(self, sign: str) -> None:
        if sign in _SIGNS:
            self.units.add(_SIGNS[sign])
        else:
            self.code.append(sign)

    def _number(self, digits: str, suffix: str) -> None:
        suffix = suffix.lower()
        plain = digits.rstrip(".,:/-")
        if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", plain):
            plain = plain.replace(",", "")
        if re.fullmatch(r"\d+\.\d*0+", plain) and len(plain.split(".")[0]) < 5:
            plain = plain.rstrip("0").rstrip(".")
        plain = plain.lstrip("0") or "0"
        if suffix in words.MULTIPLIERS and suffix != "m" and plain.isdigit():
            plain, suffix = str(int(plain) * words.MULTIPLIERS[suffix]), ""
        if suffix in _ORDINAL_SUFFIXES:
            plain, suffix = f"#{plain}", ""
        self.numbers.append(plain)
        self._matters(plain)
        self._number_open, self._tens_open, self._starts = plain.isdigit(), False, False
        if suffix:
            self._plain_word(suffix, False)

    def _word(self, word: str) -> None:
        lowered = word.lower().replace("\u2019", "'")
        capital = (
            word[0].isupper()
            and word not in ("I", "OK")
            and (not self._starts or (len(word) > 1 and word.isupper() and not self.text.isupper()))
        )
        if lowered.endswith("n't") or lowered == "cannot":
            self.plain.append("not")
            self._starts = False
            return
        lowered = lowered.removesuffix("'s").removesuffix("'").partition("'")[0] or lowered
        self._plain_word(lowered, capital)

    def _plain_word(self, word: str, capital: bool) -> None:
        word = self._particle(words.ALIASES.get(word, word))
        self.plain.append(word)
        starts, self._starts = self._starts, False
        if not (starts and word in _TWO_MEANINGS) and self._numeral(word):
            return
        word = self._dated_or_measured(word, capital)
        if word in words.ROLES:
            self._role = words.ROLES[word]
        elif word not in words.STOP_WORDS:
            self._matters(word)
            if capital and word not in self.units:
                self.capitals.append(word)
        elif word not in _DETERMINERS:
            self._role = ""
        self._number_open = False

    def _particle(self, word: str) -> str:
        """`on` in `turn the light on` is a word of its own."""
        if word in words.TURNING:
            self._turning = True
        elif self._turning and word in words.PARTICLES:
            self._turning = False
            return words.PARTICLES[word]
        return word

    def _dated_or_measured(self, word: str, capital: bool) -> str:
        """Short words are units and dates only beside a number: `5 m`, `6 am`. Gives a unit's usual name."""
        telling = len(word) > 2 or self._number_open
        if telling and (date := words.DATES.get(word)) is not None:
            self.dates.setdefault(date[0], set()).add(date[1])
        elif capital and word in ("may", "march"):
            self.dates.setdefault(0, set()).add(word)
        if telling and (unit := words.UNITS.get(word)) is not None:
            self.units.add(unit)
            return unit
        return word

    def _numeral(self, word: str) -> bool:
        """Take a number in words; False: it is none. Of `one` nobody knows."""
        if word in words.NUMBER_WORDS:
            if word == "one":
                return False
            value = words.NUMBER_WORDS[word]
            if self._tens_open and 0 < value < 10:
                self.numbers[-1] = f"{int(self.numbers[-1]) + value:g}"
            else:
                self.numbers.append(f"{value:g}")
                self._matters(self.numbers[-1])
            self._tens_open, self._number_open = value in range(20, 100, 10), True
            return True
        if word in words.MULTIPLIERS and len(word) > 2:
            count = float(self.numbers.pop()) if self._number_open and self.numbers else 1.0
            self.numbers.append(f"{count * words.MULTIPLIERS[word]:.15g}")
        elif word in words.ORDINALS:
            self.numbers.append(f"#{words.ORDINALS[word]}")
        else:
            self._tens_open = False
            return False
        self._tens_open, self._number_open = False, False
        return True

    def _matters(self, word: str) -> None:
        self.order.append(word)
        if self._role:
            self.roles.setdefault(word, self._role)
            self._role = ""

    def _quantities(self, present: frozenset[str]) -> frozenset[str]:
        found = {words.QUANTITIES[word] for word in present if word in words.QUANTITIES}
        if self.numbers or self.units:
            if _AT_LEAST.search(self.folded):
                found.add("at least")
            if _AT_MOST.search(self.folded):
                found.add("at most")
        return frozenset(found)


_HOW = {
    "many": "number", "much": "amount", "long": "duration", "often": "frequency", "far": "distance", "old": "age",
    "tall": "size", "big": "size", "large": "size", "fast": "speed", "deep": "size", "high": "size",
    "hot": "temperature", "cold": "temperature", "heavy": "weight", "expensive": "amount", "early": "time",
    "late": "time", "soon": "time",
}  # fmt: skip
_WHAT = {
    "time": "time", "year": "time", "date": "time", "day": "time", "month": "time", "century": "time",
    "reason": "reason", "reasons": "reason", "cause": "reason", "city": "place", "country": "place",
    "place": "place", "person": "person", "price": "amount", "distance": "distance",
}  # fmt: skip
_STRONG = {"who": "person", "whose": "person", "whom": "person", "when": "time", "where": "place", "why": "reason"}
_YES_OR_NO = frozenset(
    {
        "is", "are", "was", "were", "do", "does", "did", "has", "have", "had", "isnt", "arent", "doesnt", "dont",
        "didnt"
    }
)  # fmt: skip
_WEAK = Question("", False)


def _question(plain: list[str], folded: str) -> Question:
    """By the first word that asks; politeness before it does not matter."""
    for place, word in enumerate(plain[:12]):
        following = plain[place + 1] if place + 1 < len(plain) else ""
        if word == "how":
            if following == "come":
                return Question("reason", True)
            return Question(_HOW[following], True) if following in _HOW else Question("manner", False)
        if word in ("what", "which"):
            near = next((_WHAT[other] for other in plain[place + 1 : place + 3] if other in _WHAT), None)
            return Question(near, True) if near is not None else Question("what", False)
        if word in _STRONG:
            asks = place == 0 or place == len(plain) - 1 or (plain[0] not in ("how", "what") and _asks(plain, place))
            if asks:
                return Question(_STRONG[word], True)
    if plain and plain[0] in _YES_OR_NO:
        return Question("yes or no", "or" not in plain)
    return _WEAK


_BEFORE_A_QUESTION = frozenset(
    {
        "know", "tell", "me", "wonder", "wondering", "explain", "say", "in", "from", "at", "by", "for", "of", "to",
        "and", "so", "but", "hi", "hello", "question"
    }
)  # fmt: skip


def _asks(plain: list[str], place: int) -> bool:
    return plain[place - 1] in _BEFORE_A_QUESTION


def _language(plain: list[str]) -> str:
    """The language whose small words are most; empty where there are too few of them to tell."""
    if len(plain) < 3:
        return ""
    present = set(plain)
    counts = sorted(((len(present & own), language) for language, own in words.LANGUAGES.items()), reverse=True)
    (most, language), (next_most, _) = counts[0], counts[1]
    return language if most >= 2 and most > next_most else ""


def _script(text: str) -> str:
    if text.isascii():
        return "LATIN"
    counts: dict[str, int] = {}
    for letter in text[:400]:
        if letter.isalpha():
            script = unicodedata.name(letter, "").partition(" ")[0]
            script = "CJK" if script in ("HIRAGANA", "KATAKANA", "CJK") else script
            counts[script] = counts.get(script, 0) + 1
    return max(counts, key=lambda script: counts[script]) if counts else "LATIN"
