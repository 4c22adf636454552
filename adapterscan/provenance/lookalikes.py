"""Say which known name another one could be taken for, and by what: letters, edits, words.

Sources: Unicode TR39, section 4 (skeletons of confusable text); Damerau 1964, in the form that
edits no part twice (optimal string alignment).
Limits: the names that we know, and Latin, Greek and Cyrillic letters. A name that looks like no
listed one is not judged.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache

from adapterscan.provenance.known import bases, organisations

LONGEST = 128  # characters of a name that is compared; the hub allows 96

#: Letters of other scripts that look like Latin ones, beyond what NFKC folds (TR39, by hand).
_CONFUSABLE = str.maketrans(
    {
        **dict(zip("аеорсухіјѕһԁԛԝьӏԍ", "aeopcyxijshdqwblg", strict=True)),  # Cyrillic
        **dict(zip("АВЕЅІЈКМНОРСТХУҮЗԌ", "ABESIJKMHOPCTXYY3G", strict=True)),
        **dict(zip("мтпгкв", "mtnrkb", strict=True)),
        **dict(zip("αορνυικτγηωϲρ", "aopvuiktynwcp", strict=True)),  # Greek
        **dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "ABEZHIKMNOPTYX", strict=True)),
        **dict(zip("ıłøđħŧɑɡɩʟʀꞵ", "iloDhtagilrB", strict=True)),
        **dict.fromkeys("‐‑‒–—―−⁃﹘ー_.", "-"),
        **dict.fromkeys("∕⁄／", "/"),
    }
)
#: What looks alike in many fonts, after case is gone. `i` is there for a capital I.
_ALIKE = (("rn", "m"), ("vv", "w"), ("1", "l"), ("i", "l"), ("|", "l"), ("0", "o"), ("5", "s"))
_SEPARATORS = re.compile(r"[-_.\s]+")
#: Words that make a name sound like the one that it is added to.
_SPEAKING_FOR = frozenset(
    "official officials original real verified genuine team hq inc corp llc releases release "
    "support security public mirror backup".split()
)
_COUNTED = {1: "one edit", 2: "two edits"}
_SHORTEST = 6  # letters of a known name, to be taken for it at one edit
_PART = 3  # letters; shorter names are in others by chance
_LONG = 9  # letters at which two edits still leave it recognisable
_SHORT_WITH_MODEL = 4  # letters, where the model's name is that of a known one as well


@dataclass(frozen=True, slots=True)
class Resemblance:
    """A known name that another could be taken for.

    `how`: `letters` (of another script, or invisible), `shapes` (I for l, rn for m, 0 for o),
    `separators` (the same but for dashes), `one edit`, `two edits`, `added word`; and
    where the model has the name of a known one, `added number`, `part of the name`.
    """

    known: str
    how: str
    edits: int = 0


@dataclass(frozen=True, slots=True)
class Alike:
    """What an id could be taken for. `model`: its last part is that of a model of that owner."""

    owner: Resemblance
    model: str  # the id of the known model, "" where only the owner resembles


def like_owner(name: str, *, short: bool = False) -> Resemblance | None:
    """Return the known organisation that `name` could be taken for; None for one of them.

    `short` allows an edit of a short name as well, for where something else speaks for it.
    """
    name = name[:LONGEST]
    known = _known_owners()
    if name.casefold() in known.exact:
        return None
    if found := _by_looks(name, known):
        return found
    flat = _flat(name)
    for word in _SPEAKING_FOR:
        for rest in (flat.removesuffix(word), flat.removeprefix(word)):
            if rest != flat and rest in known.flat:
                return Resemblance(known.flat[rest], "added word")
    return _by_edits(flat, known, short=short)


def like_id(text: str) -> Alike | None:
    """Return what the id `owner/name` could be taken for; None where its owner is a known one."""
    owner, slash, name = text[: 2 * LONGEST].partition("/")
    if not slash or owner.casefold() in _known_owners().exact:
        return None
    models = _models().get(skeleton(name), ())
    found = like_owner(owner, short=bool(models))
    if found is not None:
        same = [model for model in models if _owner(model) == found.known.lower()]
        if same or found == like_owner(owner):
            return Alike(found, same[0] if same else "")
    for model in models:
        if how := _contained(_flat(owner), _flat(_owner(model))):
            return Alike(Resemblance(model.partition("/")[0], how), model)
    return None


def _contained(owner: str, known: str) -> str:
    """Return how one of two names lies in the other: an added number, a part of it, or ""."""
    if known in owner and owner.replace(known, "", 1).isdigit():
        return "added number"
    inside = known in owner or owner in known
    return "part of the name" if inside and min(len(owner), len(known)) > _PART else ""


def like_model(name: str) -> Resemblance | None:
    """Return the known model whose name (without its owner) `name` has, or looks like."""
    found = _models().get(skeleton(name[:LONGEST]))
    if not found:
        return None
    known = found[0].partition("/")[2]
    if _flat(name) == _flat(known):
        return Resemblance(found[0], "same name")
    return Resemblance(found[0], "shapes" if name.isascii() else "letters")


def same_model(text: str) -> str:
    """Return the known id with the name of the id `text` and another, known owner; or ""."""
    owner, _, name = text[: 2 * LONGEST].partition("/")
    found = [
        m for m in _models().get(skeleton(name), ()) if _flat(m.partition("/")[2]) == _flat(name)
    ]
    owners = {_owner(model) for model in found}
    return "" if not found or owner.casefold() in owners else found[0]


def skeleton(name: str) -> str:
    """Return `name` with everything folded that looks alike; names that look alike have one."""
    plain = unicodedata.normalize("NFKC", name).translate(_CONFUSABLE)
    plain = unicodedata.normalize("NFD", plain)
    text = "".join(c for c in plain if unicodedata.category(c) not in ("Mn", "Cf")).casefold()
    for shape, letter in _ALIKE:
        text = text.replace(shape, letter)
    return _SEPARATORS.sub("", text)


def distance(one: str, other: str, most: int) -> int:
    """Return the edits between two names, with a swap of neighbours as one; `most` + 1 for more."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    last = list(range(len(other) + 1))
    for at, letter in enumerate(one, 1):
        row = [at]
        for to, against in enumerate(other, 1):
            cost = min(last[to] + 1, row[to - 1] + 1, last[to - 1] + (letter != against))
            swapped = at > 1 and to > 1 and letter == other[to - 2] and one[at - 2] == against
            row.append(min(cost, before[to - 2] + 1) if swapped else cost)
        if min(row) > most:
            return most + 1
        before, last = last, row
    return min(last[-1], most + 1)


@dataclass(frozen=True, slots=True)
class _Known:
    exact: frozenset[str]  # without case
    flat: dict[str, str]  # without case and separators
    looks: dict[str, str]  # by skeleton


@cache
def _known_owners() -> _Known:
    names = organisations()
    return _Known(
        frozenset(name.casefold() for name in names),
        {_flat(name): name for name in names},
        {skeleton(name): name for name in names},
    )


@cache
def _models() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for model in bases():
        key = skeleton(model.partition("/")[2])
        found[key] = (*found.get(key, ()), model)
    return found


def _by_looks(name: str, known: _Known) -> Resemblance | None:
    flat = _flat(name)
    if flat in known.flat:
        return Resemblance(known.flat[flat], "separators")
    looks = skeleton(name)
    if looks in known.looks:
        return Resemblance(known.looks[looks], "shapes" if name.isascii() else "letters")
    return None


def _by_edits(flat: str, known: _Known, *, short: bool) -> Resemblance | None:
    best: Resemblance | None = None
    for other, name in known.flat.items():
        most = _edits_allowed(other, short=short)
        found = distance(flat, other, most) if most else 1
        if found > most or _letters(flat) == _letters(other):
            continue
        if best is None or found < best.edits:
            best = Resemblance(name, _COUNTED[found], found)
    return best


def _edits_allowed(known: str, *, short: bool) -> int:
    letters = len(_letters(known))
    if letters >= _LONG:
        return 2
    return int(letters >= (_SHORT_WITH_MODEL if short else _SHORTEST))


def _letters(flat: str) -> str:
    """Return a name without digits: another number is another version, not another spelling."""
    return "".join(c for c in flat if not c.isdigit())


def _owner(model: str) -> str:
    return model.partition("/")[0].casefold()


def _flat(name: str) -> str:
    return _SEPARATORS.sub("", name.casefold())
