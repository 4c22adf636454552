"""Take ids of models out of packages' sources, and tell which owners resemble a known one.

    python -m benchmarks.names
    pip download --no-deps transformers==5.23.0 diffusers==0.42.1 peft==0.21.2 lm-eval==0.4.13
    python -m benchmarks.names *.whl [FILE of names, one a line]

Owners that are listed as known are left out: what is left was not looked at when lists and limits
were made. Without arguments: how many misspellings of known owners are told, by kind.
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from adapterscan.provenance.known import organisations
from adapterscan.provenance.lookalikes import like_id, like_owner

_TEXT = (".py", ".md", ".json", ".yaml", ".txt")
_ID = r"[A-Za-z0-9][A-Za-z0-9-]{1,38}/[A-Za-z0-9][\w.-]{2,90}"
_PAGES = (
    "datasets|docs|spaces|papers|blog|models|api|settings|join|learn|collections|tasks|posts|chat"
)
_QUOTED = re.compile(rf"""["'`]({_ID})["'`]|huggingface\.co/(?!{_PAGES})({_ID})""")


def ids(wheel: Path) -> Iterator[str]:
    """Yield what is quoted as an id, or follows the hub's address, in a wheel's sources."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(_TEXT):
                text = archive.read(name).decode("utf-8", "replace")
                yield from ((match[1] or match[2]).rstrip(".") for match in _QUOTED.finditer(text))


def misspelt(name: str) -> Iterator[tuple[str, str]]:
    """Yield (kind, name) for every way to misspell `name` once."""
    for letter, shape in (("l", "I"), ("i", "l"), ("o", "0"), ("m", "rn"), ("w", "vv"), ("l", "1")):
        if letter in name:
            yield "shapes", name.replace(letter, shape, 1)
    if "-" in name:
        yield "separators", name.replace("-", "_")
        yield "separators", name.replace("-", "")
    for word in ("official", "team", "hq"):
        yield "added word", f"{name}-{word}"
    for at in range(len(name)):
        yield "left out", name[:at] + name[at + 1 :]
        yield "doubled", name[: at + 1] + name[at:]
        yield "swapped", name[:at] + name[at : at + 2][::-1] + name[at + 2 :]
        yield "replaced", name[:at] + "x" + name[at + 1 :]


def planted() -> None:
    """Print of each kind how many misspellings resemble the name that they are made from."""
    made: Counter[str] = Counter()
    told: Counter[str] = Counter()
    known = {name.casefold() for name in organisations()}
    for name in organisations():
        for kind, other in set(misspelt(name)):
            if other.casefold() not in known:
                made[kind] += 1
                told[kind] += like_owner(other) is not None
    for kind, count in made.items():
        sys.stdout.write(f"{kind}: {told[kind]} of {count}\n")


def main(arguments: list[str]) -> None:
    """Print how many owners and ids resemble a known one, and which."""
    known = {name.casefold() for name in organisations()}
    found: set[str] = set()
    owners: set[str] = set()
    for path in map(Path, arguments):
        if path.suffix == ".whl":
            found |= set(ids(path))
        else:
            owners |= set(path.read_text("utf-8").split())
    owners |= {name.partition("/")[0] for name in found}
    owners = {name for name in owners if name.casefold() not in known}
    alike = [(name, like) for name in sorted(owners) if (like := like_owner(name))]
    named = [(name, like) for name in sorted(found) if (like := like_id(name))]
    sys.stdout.write(f"{len(alike)} of {len(owners)} owners, {len(named)} of {len(found)} ids\n")
    for name, owner in alike:
        sys.stdout.write(f"{name}: {owner.known}, {owner.how}\n")


if __name__ == "__main__":
    main(sys.argv[1:]) if sys.argv[1:] else planted()
