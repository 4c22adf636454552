"""Say under which licence an adapter is given, and where the base's asks more than that.

Source: `provenance/licences.toml`. Most terms for derivatives travel with an adapter of the base.
Limits: no legal advice. Base and licence are told by their names; a custom text is not understood.
"""

from __future__ import annotations

from collections.abc import Iterator

from adapterscan.detectors.detector import Detector
from adapterscan.detectors.provenance.cards import texts_of
from adapterscan.model import Evidence, Need, Scalar, Subject
from adapterscan.provenance.licences import is_free, licence_of, terms_of
from adapterscan.reading import Contents
from adapterscan.text import printable

_FIELDS = ("license", "license_name")
_UNSAID = frozenset({"", "other", "unknown", "none"})


def run(contents: Contents) -> Iterator[Evidence]:
    """Yield `licence.stated` and `licence.conflict`, for each folder that holds an adapter."""
    for folder in dict.fromkeys(outline.folder for outline in contents.outlines):
        card, text, file = _stated(contents, folder)
        agree = not (card and text) or text in card or _UNSAID & set(card) != set()
        details: dict[str, Scalar] = {
            "card": printable(", ".join(card)), "text": text, "file": file, "agree": agree,
        }  # fmt: skip
        said = [name for name in (*card, text) if name not in _UNSAID]
        value = printable(", ".join(dict.fromkeys(said)))
        subject = Subject("adapter", name=folder)
        if not value:
            value = "a text of its own" if file or card else "none"
        yield Evidence("licence.stated", subject, value, "", details)
        yield from _conflicts(contents, folder, subject, said)


def _conflicts(
    contents: Contents, folder: str, subject: Subject, said: list[str]
) -> Iterator[Evidence]:
    config = contents.configs.get(folder)
    bases = [config.base_model] if config and config.base_model else []
    if card := contents.papers.card_of(folder):
        bases += texts_of(contents.papers.head(card).get("base_model"))
    free = [name for name in said if is_free(name)]
    for base in dict.fromkeys(bases):
        terms = terms_of(base)
        if terms is None or not free or any(name.lower() in terms.also for name in said):
            continue
        details: dict[str, Scalar] = {
            "base": printable(base), "base_licence": terms.licence, "asks": terms.asks,
        }  # fmt: skip
        yield Evidence("licence.conflict", subject, free[0], "", details)
        return


def _stated(contents: Contents, folder: str) -> tuple[list[str], str, str]:
    """Return the ids in the card's head, the id of the licence's text, and the file it is in."""
    papers = contents.papers
    head = papers.head(path) if (path := papers.card_of(folder)) else {}
    card = [name.lower() for field in _FIELDS for name in texts_of(head.get(field))]
    place = papers.licences.get(folder) or papers.licences.get("", "")
    return card, licence_of(papers.of(place)) if place else "", place


DETECTOR = Detector(
    "licences", 1, frozenset({Need.FILES}), "the licence, and the base's", run,
    takes=lambda contents, _: contents.outlines,
)  # fmt: skip
