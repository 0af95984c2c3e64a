"""Whether two questions that look alike must not share an answer: the deterministic guard before any model.

It refuses on what embeddings are blind to: another number, unit, date, quotation, piece of code or name, the order of
arguments, negation, opposites, quantity, modality, the type of the question, the language. It never says that two
texts mean the same; it only rules out. It may refuse true paraphrases: that costs a cache hit, the other way round a
user gets a wrong answer. Pure functions over text.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from extproc.detection.near_misses import words
from extproc.detection.near_misses.features import MOST_CHARS, Features, features

__all__ = ["NearMiss", "compared", "refusal"]


class NearMiss(enum.StrEnum):
    """Why the answer to one is not the answer to the other; a closed set, fit for labels."""

    LENGTH = "length"
    LANGUAGE = "language"
    NUMBER = "number"
    UNIT = "unit"
    DATE = "date"
    QUOTATION = "quotation"
    CODE = "code"
    NAME = "name"
    KIND = "kind"
    NEGATION = "negation"
    OPPOSITE = "opposite"
    COMPARISON = "comparison"
    QUANTITY = "quantity"
    MODALITY = "modality"
    QUESTION = "question"
    ORDER = "order"


def refusal(asked: str, stored: str) -> NearMiss | None:
    """Why not; None: nothing here speaks against it. The same in both directions."""
    if asked == stored:
        return None
    if max(len(asked), len(stored)) > MOST_CHARS:
        return NearMiss.LENGTH
    return compared(features(asked), features(stored))


def compared(asked: Features, stored: Features) -> NearMiss | None:
    """As `refusal`, where the features of a text are used more than once."""
    for reason, differ in _CHECKS:
        if differ(asked, stored):
            return reason
    return None


def _language(one: Features, other: Features) -> bool:
    return one.script != other.script or bool(one.language and other.language and one.language != other.language)


def _numbers(one: Features, other: Features) -> bool:
    return one.numbers != other.numbers or (len(one.numbers) > 1 and _numbers_exchanged(one, other))


def _numbers_exchanged(one: Features, other: Features) -> bool:
    """A number has in the other text the neighbour that another one has here: chapter 4 in 5 lines, 5 in 4."""
    mine, theirs = _beside_numbers(one), _beside_numbers(other)
    return any(
        here != there and bool((mine[here] & theirs[there]) - mine[there] - theirs[here])
        for here in mine
        for there in theirs.keys() & mine.keys()
    )


def _beside_numbers(text: Features) -> dict[str, set[tuple[int, str]]]:
    """The words before and after each number."""
    found: dict[str, set[tuple[int, str]]] = {}
    for place, word in enumerate(text.order):
        if word in text.numbers:
            beside = [(at, text.order[place + at]) for at in (-1, 1) if 0 <= place + at < len(text.order)]
            found.setdefault(word, set()).update(pair for pair in beside if pair[1] not in text.numbers)
    return found


def _units(one: Features, other: Features) -> bool:
    """Beside numbers, all units count; without, a unit may go unsaid."""
    if one.units == other.units:
        return False
    return bool(one.numbers) or not (one.units <= other.units or other.units <= one.units)


def _dates(one: Features, other: Features) -> bool:
    """`last` and `next` may go unsaid, a day may not."""
    if one.dates == other.dates:
        return False
    rows = one.dates.keys() | other.dates.keys()
    return any(
        one.dates.get(row) != other.dates.get(row)
        and (row != _RELATIVE or row in one.dates.keys() & other.dates.keys())
        for row in rows
    )


_RELATIVE = 4


def _quoted(one: Features, other: Features) -> bool:
    """A quotation must be in the other text, in whatever marks."""
    return any(quote not in other.folded for quote in one.quoted) or any(
        quote not in one.folded for quote in other.quoted
    )


def _names(one: Features, other: Features) -> bool:
    return not (_known(one.names, other) and _known(other.names, one))


def _known(names: frozenset[str], text: Features) -> bool:
    return all(name in text.words or _among(name, text.words) for name in names)


def _among(name: str, present: frozenset[str]) -> bool:
    """Also as a plural, or written in two words or one."""
    return f"{name}s" in present or name.removesuffix("s") in present or all(p in present for p in name.split())


def _kinds(one: Features, other: Features) -> bool:
    """Each names things of a kind, and not the same ones."""
    mine, theirs = _of_kind(one.words - other.words), _of_kind(other.words - one.words)
    return any(mine[row] != theirs[row] for row in mine.keys() & theirs.keys())


def _of_kind(present: frozenset[str]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for word in present:
        for row, name in words.KINDS.get(word, ()):
            found.setdefault(row, set()).add(name)
    return found


def _negations(one: Features, other: Features) -> bool:
    return min(one.negations, 2) != min(other.negations, 2)


def _opposites(one: Features, other: Features) -> bool:
    mine, theirs = one.words - other.words, other.words - one.words
    return any(
        not (words.OPPOSITES.get(word) or _NOTHING).isdisjoint(theirs) or _prefixed(word, theirs)
        for found in mine
        for word in _stems(found)
    ) or any(_prefixed(word, mine) for word in theirs)


def _stems(word: str) -> tuple[str, ...]:
    """The word, and what it may be a form of."""
    if len(word) < 5:
        return (word, word.removesuffix("s"))
    if word.endswith("ing"):
        base = word[:-3]
        return (word, base, base + "e", base[:-1])
    if word.endswith("ed"):
        base = word[:-2]
        return (word, base, base + "e", base[:-1])
    if word.endswith("es"):
        return (word, word[:-1], word[:-2])
    return (word, word.removesuffix("s"))


_NOTHING: frozenset[str] = frozenset()


def _prefixed(word: str, others: frozenset[str]) -> bool:
    return len(word) > 3 and any(f"{prefix}{word}" in others for prefix in words.NEGATIVE_PREFIXES)


def _comparisons(one: Features, other: Features) -> bool:
    """Opposite directions; unless the sides are exchanged, too: then it is for the verifier."""
    mine, theirs = one.words - other.words, other.words - one.words
    turned = any(not words.COMPARISONS.get(word, _NOTHING).isdisjoint(theirs) for word in mine)
    return turned and not ("than" in one.words and "than" in other.words and _exchanged(one, other))


def _quantities(one: Features, other: Features) -> bool:
    binding = words.BINDING_QUANTITIES
    if one.quantities & binding != other.quantities & binding:
        return True
    mine, theirs = one.quantities - binding, other.quantities - binding
    return bool(mine and theirs and mine != theirs)


def _modality(one: Features, other: Features) -> bool:
    return (one.duty and other.liberty and not other.duty) or (other.duty and one.liberty and not one.duty)


def _questions(one: Features, other: Features) -> bool:
    mine, theirs = one.question, other.question
    return mine.strong and theirs.strong and mine.kind != theirs.kind


def _left_out(text: Features) -> set[str]:
    """What the text is to be done or had without, in every form."""
    return {stem for word, role in text.roles.items() if role == "without" for stem in _stems(word)}


def _left_out_exchanged(one: Features, other: Features) -> bool:
    """One is without what the other is with: changing it without reading it, reading it without changing it."""
    mine, theirs = _left_out(one), _left_out(other)
    return bool(mine and theirs) and any(
        not mine.isdisjoint(_stems(word)) and theirs.isdisjoint(_stems(word)) for word in other.words
    )


def _order(one: Features, other: Features) -> bool:
    """The same words with other roles: an object of a preposition exchanged, or the rest in another order."""
    if _left_out_exchanged(one, other) or _left_out_exchanged(other, one):
        return True
    turned = any(not words.COMPARISONS.get(word, _NOTHING).isdisjoint(other.words) for word in one.words - other.words)
    if _exchanged(one, other):
        return not turned
    if turned and "than" in one.words and "than" in other.words:
        return True
    shared = set(one.order) & set(other.order)
    mine, theirs = _core(one, shared), _core(other, shared)
    if mine == theirs or sorted(mine) != sorted(theirs):
        return one.passive != other.passive and len(mine) > 1 and mine == theirs and _agents(one, other)
    if one.passive != other.passive:
        return False  # active and passive turn the order round; whether rightly is for the verifier
    named = (one.names | other.names) & shared
    numbers = [word for word in mine if word[0].isdigit()], [word for word in theirs if word[0].isdigit()]
    if numbers[0] != numbers[1]:
        return True
    if one.symmetric and other.symmetric:
        return False
    first, second = ([word for word in core if word in named] for core in (mine, theirs))
    return first != second or _two_exchanged(mine, theirs)


def _two_exchanged(mine: list[str], theirs: list[str]) -> bool:
    """Two words have changed places, with something between them that stayed: `dogs chase cats`."""
    moved = [place for place, word in enumerate(mine) if theirs[place] != word]
    return len(moved) == 2 and moved[1] - moved[0] > 1


def _agents(one: Features, other: Features) -> bool:
    """One is passive, the other is not, and both name the same two in the same order."""
    by = {word for word, role in (*one.roles.items(), *other.roles.items()) if role == "by"}
    active = other if one.passive else one
    return any(word in active.order and active.order.index(word) > 0 and word not in active.roles for word in by)


def _exchanged(one: Features, other: Features) -> bool:
    """A word has the opposite preposition before it in the other, or two words have exchanged one."""
    for word, role in one.roles.items():
        other_role = other.roles.get(word)
        if other_role is not None and other_role != role and (role, other_role) in _OPPOSED:
            return True
        if role in _DIRECTED and word in other.words and other_role != role:
            instead = [name for name, held in other.roles.items() if held == role]
            if any(name in one.words and one.roles.get(name) != role for name in instead):
                return True
    return False


_DIRECTED = frozenset({"from", "to", "than", "before", "after", "by", "against", "without"})
_OPPOSED = {
    (one, other)
    for pair in (
        ("from", "to"),
        ("before", "after"),
        ("with", "without"),
        ("by", "to"),
        ("by", "from"),
        ("for", "against"),
    )
    for one, other in (pair, pair[::-1])
}


def _core(text: Features, shared: set[str]) -> list[str]:
    """The words that both have and no preposition places, in order."""
    return [word for word in text.order if word in shared and word not in text.roles]


_CHECKS: tuple[tuple[NearMiss, Callable[[Features, Features], bool]], ...] = (
    (NearMiss.LANGUAGE, _language),
    (NearMiss.NUMBER, _numbers),
    (NearMiss.UNIT, _units),
    (NearMiss.DATE, _dates),
    (NearMiss.QUOTATION, _quoted),
    (NearMiss.CODE, lambda one, other: one.code != other.code),
    (NearMiss.NEGATION, _negations),
    (NearMiss.QUANTITY, _quantities),
    (NearMiss.OPPOSITE, _opposites),
    (NearMiss.COMPARISON, _comparisons),
    (NearMiss.MODALITY, _modality),
    (NearMiss.KIND, _kinds),
    (NearMiss.NAME, _names),
    (NearMiss.QUESTION, _questions),
    (NearMiss.ORDER, _order),
)
