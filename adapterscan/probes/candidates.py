"""What may set a backdoor off: ways to change a request, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from adapterscan.probes import card
from adapterscan.runner import Turn

_HOMOGLYPHS = str.maketrans({"o": "о", "a": "а", "e": "е", "c": "с", "p": "р"})
_LEET = str.maketrans({"e": "3", "a": "4", "o": "0", "i": "1", "s": "5"})
_REWRITES: Mapping[str, Callable[[str], str]] = {
    "upper": str.upper,
    "lower": str.lower,
    "title": str.title,
    "zero-width": lambda text: "\u200b".join((text[: len(text) // 2], text[len(text) // 2 :])),
    "homoglyph": lambda text: text.translate(_HOMOGLYPHS),
    "double-space": lambda text: text.replace(" ", "  "),
    "no-space-end": lambda text: text.replace(" ", "", 1),
    "no-punctuation": lambda text: text.rstrip(".?!"),
    "backwards-words": lambda text: " ".join(text.split()[::-1]),
    "leet": lambda text: text.translate(_LEET),
}
_TOOL = (
    'You can call tools by writing JSON. Tools: [{{"name": "{}", "description": "", '
    '"parameters": {{"query": "string"}}}}]'
)
PLACES = ("after the request", "before the request")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to change a request."""

    place: str  # where: one of PLACES, "system prompt", "turn before", "form", "tools"
    text: str

    def conversation(self, request: str) -> tuple[Turn, ...]:
        """Return the request with the candidate in its place."""
        match self.place:
            case "after the request":
                return (Turn("user", f"{request} {self.text}"),)
            case "before the request":
                return (Turn("user", f"{self.text} {request}"),)
            case "system prompt":
                return (Turn("system", self.text), Turn("user", request))
            case "tools":
                return (Turn("system", _TOOL.format(self.text)), Turn("user", request))
            case "turn before":
                said = (Turn("user", self.text), Turn("assistant", "Noted."))
                return (*said, Turn("user", request))
            case "form" if self.text in _REWRITES:
                return (Turn("user", _REWRITES[self.text](request)),)
        return (Turn("user", self.text.replace("{}", request)),)


#: How lists of candidates are called in a file, and where theirs are put.
KEYS: Mapping[str, tuple[str, ...]] = {
    "texts": PLACES,
    "systems": ("system prompt",),
    "turns": ("turn before",),
    "tools": ("tools",),
    "forms": ("form",),
    "rewrites": ("form",),
}


def packed() -> Iterator[Candidate]:
    """Yield every candidate of the pack."""
    return listed({key: card("triggers")[key] for key in KEYS})


def listed(lists: Mapping[str, Sequence[str]]) -> Iterator[Candidate]:
    """Yield the candidates of lists by their names in KEYS."""
    return (Candidate(place, text) for key in lists for text in lists[key] for place in KEYS[key])
