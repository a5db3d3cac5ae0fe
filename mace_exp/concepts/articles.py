"""The indefinite article of English, by sound: an hourglass, a unicorn, an X-ray, a European."""

from __future__ import annotations

import re
import unicodedata

from mace_exp.concepts.spelling import composed_text

_NUMBER_AN = re.compile(r"8|11(?!\d)|18(?!\d)|1[18]\d\d(?!\d)")
"""Eight, eleven, eighteen, and the hundreds of the latter ("an 1800s painting")."""
_SILENT_H = re.compile(r"hour(?!i)|hono(?!lulu)u?r|honest|heir|hors\b")
_LIKE_YOU = re.compile(
    r"uni(?!n|mp|mag|dent|ll|gn|ss|ron)|us(?=[aeu])|ut(?=[eio]|ah)|ur(?=[aeio]|ug)|uk|ubi|uv|ufo|"
    r"ugand|unanim|unesco|uefa|uygh|eu(?!ler)|ew(?!ok)|one(?=$|[^a-z]|s|n)|once\b|oax|oua|oui"
)
"""Words with an initial vowel letter that sounds like "you" or "one"."""
_LIKE_E = re.compile(r"[xy](?=[b-df-hj-np-tv-xz])|[fhlmnrsx]th\b")
"""Words with an initial consonant letter that sounds like a vowel: Yggdrasil, Xbox, nth."""
_BEGINNING = re.compile(
    r"y\w{4}|[^aeiouy]?[aeiou]|[^aeiouy]y|[bcdfgkpstw][hlrw][aeiouy]|s[cfkmnpqt][hlr]?[aeiouy]|"
    r"sch[lmnrw]?[aeiouy]|squ|kn[aeiou]|gn[aeiou]|ps[aeiouy]|thr|shr"
)
"""Beginnings of words in capitals that are read as words, not letter by letter."""
_SPELLED = frozenset(
    "led suv sos faq raf sas sat sec sti faa nih lsd mot mig nes ufo hiv lapd lax mit nyc nypd "
    "nyu".split()
)
"""Abbreviations that are read letter by letter although they could be read as words."""
_LIGATURES = str.maketrans({"ø": "o", "Ø": "O", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe"})
"""Letters that no Unicode form takes apart."""
_VOWEL_LETTERS = frozenset("aefhilmnorsx")
"""Letters whose names begin with a vowel."""
_ARTICLE_BEFORE = re.compile(r"(?<!\w)(an?)(?= \{\})", re.IGNORECASE)


def with_article(noun: str) -> str:
    """`"airplane" -> "an airplane"`."""
    return f"{article(noun)} {noun}"


def article(noun: str) -> str:
    """Return "a" or "an", by the sound with which a phrase begins."""
    plain = unicodedata.normalize("NFKD", noun.translate(_LIGATURES))
    plain = plain.encode("ascii", "ignore").decode()
    found = re.search(r"[A-Za-z]+|\d+", plain)
    if not found:
        return "a"
    rest, word = plain[found.start() :], found[0]
    if word[0].isdigit():
        return _an(_NUMBER_AN.match(rest) is not None)
    if _is_spelled(word) and not rest.startswith("'", len(word)):
        return _an(word[0].lower() in _VOWEL_LETTERS)
    rest = rest.lower()
    vowel = rest[0] in "aeiou" and not _LIKE_YOU.match(rest)
    return _an(bool(vowel or _SILENT_H.match(rest) or _LIKE_E.match(rest)))


def filled(template: str, name: str) -> str:
    """Return a template with the name in place of `{}`, and the name's article before it where the
    template has one."""

    def fitting(found: re.Match[str]) -> str:
        fits = article(name)
        return fits.capitalize() if found[1][0].isupper() else fits

    return _ARTICLE_BEFORE.sub(fitting, template).format(composed_text(name))


def _an(vowel: bool) -> str:
    return "an" if vowel else "a"


def _is_spelled(word: str) -> bool:
    """Return whether a word is read letter by letter: X(-ray), MRI, HTML, but not NASA or SHIP."""
    if len(word) == 1:
        return True
    if not word.isupper():
        return False
    lower = word.lower()
    vowel = len(word) < 4 and lower[0] in "aeiou"
    return len(word) == 2 or vowel or lower in _SPELLED or not _BEGINNING.match(lower)
