"""The tables of patterns, one file a country or group of countries.

`pattern.py` says what a pattern is. A pattern's confidence is what it deserves: `alone` high only where the structure or
a checksum makes chance unlikely, low where any number of that length would do and only a word nearby tells.
"""

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
    secrets,
    sg,
    turkey_africa,
    uk,
    us,
)  # fmt: skip
from extproc.detection.patterns.pattern import Pattern

REGIONS: dict[str, tuple[Pattern, ...]] = {
    "general": general.PATTERNS,
    "secrets": secrets.PATTERNS,
    "us": us.PATTERNS,
    "uk": uk.PATTERNS,
    "ca": ca.PATTERNS,
    "au": au.PATTERNS,
    "in": india.PATTERNS,
    "sg": sg.PATTERNS,
    "de": de.PATTERNS,
    "es": es.PATTERNS,
    "fr": fr.PATTERNS,
    "it": it.PATTERNS,
    "pl": pl.PATTERNS,
    "se": nordic.SWEDEN,
    "fi": nordic.FINLAND,
    "kr": asia.KOREA,
    "th": asia.THAILAND,
    "ph": asia.PHILIPPINES,
    "tr": turkey_africa.TURKEY,
    "za": turkey_africa.SOUTH_AFRICA,
    "ng": turkey_africa.NIGERIA,
}
