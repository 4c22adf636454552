"""Find what a tokenizer's post-processor adds to a text: it names tokens, and gives their numbers.

The numbers count. `<s>` with a hundred numbers is a hidden sentence in front of every prompt.

Source: tokenizers 0.23, `processors/template.rs`, `bert.rs`, `roberta.rs`.
Limits: numbers are named by the vocabulary of the same file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapterscan.formats.token_texts import token_class
from adapterscan.formats.tokenizer_steps import step_type, steps_of

MARKERS = 4  # that an honest template adds to one text; two are usual
_MOST = 2_000  # pieces of a template
_TEXT = 2_000  # characters

Names = Callable[[int], Sequence[str]]  # the texts of a number


@dataclass(frozen=True, slots=True)
class Insertion:
    """What is added to a text, or to a pair of them.

    `kind`: "words", "another number" (a token's name with the number of another), "many" (markers),
    "drops" (the text is left out), "repeats" (it comes more than once).
    """

    place: str
    form: str  # "single", "pair", "sep", "cls"
    text: str
    count: int
    kind: str
    named: str = ""  # what the file calls it


def insertions(tree: object, names: Names) -> Iterator[Insertion]:
    """Yield what a post-processor adds that no honest one does."""
    for place, step in steps_of("post_processor", tree):
        kind = step_type(step)
        if kind == "TemplateProcessing":
            yield from _template(place, step, names)
        elif kind in ("BertProcessing", "RobertaProcessing"):
            for form in ("sep", "cls"):
                given = step.get(form)
                if isinstance(given, list) and len(given) == 2 and type(given[1]) is int:
                    yield from _added(place, form, [(str(given[0]), given[1])], names)


def _template(place: str, step: Mapping[str, Any], names: Names) -> Iterator[Insertion]:
    for form, wanted in (("single", "A"), ("pair", "AB")):
        pieces = step.get(form)
        if not isinstance(pieces, list):
            continue
        texts = "".join(_sequence(piece) for piece in pieces[:_MOST])
        for letter in wanted:
            if texts.count(letter) != 1:
                kind = "repeats" if letter in texts else "drops"
                yield Insertion(place, form, letter, texts.count(letter), kind)
        tokens = [token for piece in pieces[:_MOST] for token in _tokens(piece, step)]
        yield from _added(place, form, tokens[:_MOST], names)


def _sequence(piece: object) -> str:
    inner = piece.get("Sequence") if isinstance(piece, Mapping) else None
    return str(inner.get("id", ""))[:1] if isinstance(inner, Mapping) else ""


def _tokens(piece: object, step: Mapping[str, Any]) -> list[tuple[str, int | None]]:
    """Return what one piece of a template adds: the name of each token, and its number."""
    inner = piece.get("SpecialToken") if isinstance(piece, Mapping) else None
    if not isinstance(inner, Mapping):
        return []
    name = str(inner.get("id", ""))
    known = step.get("special_tokens")
    entry = known.get(name) if isinstance(known, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(entry.get("ids"), list):
        return [(name, None)]
    numbers, texts = entry["ids"], entry.get("tokens")
    texts = texts if isinstance(texts, list) else []
    return [
        (str(texts[at]) if at < len(texts) else name, number if type(number) is int else None)
        for at, number in enumerate(numbers[:_MOST])
    ]


def _added(
    place: str, form: str, tokens: Sequence[tuple[str, int | None]], names: Names
) -> Iterator[Insertion]:
    if not tokens:
        return
    meant, named = [], []
    other = False
    for name, number in tokens:
        texts = names(number) if number is not None else [name]
        other |= bool(texts) and name not in texts
        meant.append(texts[0] if texts and name not in texts else name)
        named.append(name)
    joined = "".join(meant)[:_TEXT]
    said = [text for text in meant if token_class(text) not in ("marker", "blank", "sign")]
    kind = ""
    if said:
        kind = "another number" if other else "words"
    elif other:
        kind = "another number"
    elif len(tokens) > 2 * MARKERS if form == "pair" else len(tokens) > MARKERS:
        kind = "many"
    if kind:
        yield Insertion(place, form, joined, len(tokens), kind, "".join(named)[:_TEXT])
