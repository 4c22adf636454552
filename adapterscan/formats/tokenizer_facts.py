"""Say what is seen in one file of a tokenizer, without another to compare it with.

Limits: words that an honest author adds as tokens look like those of a dishonest one: they are
told, and hardly judged. What a model makes of a token is in its weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice

from adapterscan.formats.rank_order import misplaced
from adapterscan.formats.token_texts import shown, token_class
from adapterscan.formats.tokenizer_file import STEPS, AddedToken, TokenizerFile
from adapterscan.formats.tokenizer_insertions import insertions
from adapterscan.formats.tokenizer_steps import rewrites_of
from adapterscan.formats.vocabulary import Merges, Vocabulary
from adapterscan.model import Evidence, Scalar, Subject
from adapterscan.text import printable

MOST = 200  # facts of each kind of one file
_TELLING = frozenset({"hidden", "address", "phrase", "words", "word"})
_SHORT = 64  # tokens: a length below hides what is said
_PATHS = ("vocab_file", "merges_file", "tokenizer_file", "tokenizer_object", "spm_file")
_NO_LIMIT = 1e29  # what transformers writes for none is 1e30


def facts_of(file: TokenizerFile, known: Vocabulary | None) -> Iterator[Evidence]:
    """Yield what is seen in a file. `known`: the vocabulary that its tokens mean, or None."""
    if file.vocabulary is not None:
        yield Evidence(
            "tokenizer.present", Subject("file", file.path), len(file.vocabulary), "tokens",
            {
                "form": file.kind, "model": printable(file.model, 40),
                "merges": len(file.merges) if file.merges else 0, "added": len(file.added),
            },
        )  # fmt: skip
    yield from islice(_rewrites(file), MOST)
    yield from islice(_insertions(file, known), MOST)
    yield from islice(_tokens(file), MOST)
    yield from islice(_clashes(file, known), MOST)
    if file.vocabulary is not None and file.merges is not None:
        yield from islice(out_of_order(file, file.vocabulary, file.merges), MOST)
    yield from islice(_specials(file, known), MOST)
    yield from islice(_settings(file), MOST)


def subject(file: TokenizerFile, place: str) -> Subject:
    """Return a field of a file as a subject."""
    return Subject("field", file.path, printable(place))


def _rewrites(file: TokenizerFile) -> Iterator[Evidence]:
    for part in (*STEPS, "denormalizer"):
        where = "decoder" if part == "denormalizer" else part
        for found in rewrites_of(part, file.steps.get(part)):
            yield Evidence(
                "tokenizer.rewrite", subject(file, found.place), shown(found.writes), "",
                {
                    "part": where, "step": found.step, "pattern": printable(found.pattern, 120),
                    "regex": found.regex, "finds": found.finds, "class": found.kind,
                },
            )  # fmt: skip


def _insertions(file: TokenizerFile, known: Vocabulary | None) -> Iterator[Evidence]:
    names = known.texts_of if known is not None else lambda _: ()
    for found in insertions(file.steps.get("post_processor"), names):
        yield Evidence(
            "tokenizer.insertion", subject(file, found.place), shown(found.text), "",
            {
                "form": found.form, "count": found.count, "class": found.kind,
                "named": printable(found.named, 120),
            },
        )  # fmt: skip


def _tokens(file: TokenizerFile) -> Iterator[Evidence]:
    """Yield the added tokens that are no marker, the most telling ones first."""
    classed = ((token_class(token.text), token) for token in file.added)
    telling = [(kind, token) for kind, token in classed if kind in _TELLING]
    order = ("hidden", "address", "phrase", "words", "word")
    for kind, token in sorted(telling, key=lambda item: order.index(item[0])):
        yield Evidence(
            "tokenizer.added_token", subject(file, token.place), shown(token.text), "",
            {"number": token.number, "special": bool(token.special), "class": kind},
        )  # fmt: skip


def _clashes(file: TokenizerFile, known: Vocabulary | None) -> Iterator[Evidence]:
    for place in file.repeated:
        yield _clash(file, place, place, "", None, "repeated field")
    if (own := file.vocabulary) is not None:
        if own.repeated and file.kind == "tokenizer":
            yield _clash(file, "vocab", str(own.repeated), "", None, "repeated token")
        _, shared = own.clashes(MOST)
        for number, first, second in shared:
            yield _clash(file, "vocab", first, second, number, "two tokens")
        if len(own) and int(own.ids.min()) < 0:
            yield _clash(file, "vocab", "", "", int(own.ids.min()), "outside")
        if len(own) and int(own.ids.max()) > 2 * len(own) + len(file.added) + 4096:
            yield _clash(file, "vocab", "", "", int(own.ids.max()), "outside")
    yield from _added_clashes(file, known)


def _added_clashes(file: TokenizerFile, known: Vocabulary | None) -> Iterator[Evidence]:
    by_text: dict[str, AddedToken] = {}
    by_number: dict[int, AddedToken] = {}
    for token in file.added:
        if token.number is None:
            continue
        if (first := by_text.setdefault(token.text, token)).number != token.number:
            yield _clash(
                file, token.place, token.text, str(first.number), token.number, "two numbers"
            )
        if (other := by_number.setdefault(token.number, token)).text != token.text:
            yield _clash(file, token.place, token.text, other.text, token.number, "two tokens")
        if known is None:
            continue
        texts = known.texts_of(token.number)
        number = known.number_of(token.text)
        if texts and token.text not in texts:
            yield _clash(file, token.place, token.text, texts[0], token.number, "over another")
        elif number is not None and number != token.number:
            yield _clash(file, token.place, token.text, str(number), token.number, "two numbers")


def _clash(
    file: TokenizerFile, place: str, text: str, other: str, number: int | None, kind: str
) -> Evidence:
    if file.kind == "settings":
        kind = "settings disagree"
    details: Mapping[str, Scalar] = {"other": shown(other), "number": number, "class": kind}
    return Evidence("tokenizer.clash", subject(file, place), shown(text), "", details)


def out_of_order(file: TokenizerFile, own: Vocabulary, merges: Merges) -> Iterator[Evidence]:
    """Yield the tokens whose numbers are out of the order of their merges."""
    for found in misplaced(own, merges):
        yield Evidence(
            "tokenizer.out_of_order", subject(file, f"vocab[{shown(found.text, 60)}]"),
            found.number, "",
            {
                "token": shown(found.text), "expected": found.expected,
                "place_of": shown(found.place_of) if found.place_of else None,
                "class": token_class(found.text),
            },
        )  # fmt: skip


def _specials(file: TokenizerFile, known: Vocabulary | None) -> Iterator[Evidence]:
    """Yield tokens of a use that are no marker: a word as the end ends answers."""
    model = file.steps.get("model")
    unknown = model.get("unk_token") if isinstance(model, Mapping) else None
    more = {"model.unk_token": unknown} if isinstance(unknown, str) else {}
    for role, text in {**more, **file.specials}.items():
        kind = token_class(text) if text else "blank"
        if kind == "marker":
            continue
        number = known.number_of(text) if known is not None else None
        yield Evidence(
            "tokenizer.special", subject(file, role), shown(text), "",
            {"role": role, "number": number, "class": kind},
        )  # fmt: skip


def _settings(file: TokenizerFile) -> Iterator[Evidence]:
    model = file.steps.get("model")
    dropout = model.get("dropout") if isinstance(model, Mapping) else None
    if dropout:
        yield _setting(file, "model.dropout", dropout, "random")
    for part in ("truncation", "padding"):
        given = file.steps.get(part)
        if not isinstance(given, Mapping):
            continue
        length = given.get("max_length")
        kind = "short" if _is_short(length) or given.get("direction") == "Left" else "on"
        told = length if part == "truncation" else given.get("pad_token", "")
        yield _setting(file, part, told, kind if part == "truncation" else "on")
    longest = file.settings.get("model_max_length")
    if longest is not None and (_is_short(longest) or not _is_length(longest)):
        yield _setting(file, "model_max_length", longest, "short" if _is_short(longest) else "odd")
    for name in _PATHS:
        given = file.settings.get(name)
        if isinstance(given, str) and given:
            yield _setting(file, name, given, "another file")


def _setting(file: TokenizerFile, place: str, value: object, kind: str) -> Evidence:
    told = value if isinstance(value, bool | int | float) else printable(str(value), 120)
    return Evidence("tokenizer.setting", subject(file, place), told, "", {"class": kind})


def _is_short(length: object) -> bool:
    return type(length) in (int, float) and 0 <= float(str(length)) < _SHORT


def _is_length(length: object) -> bool:
    if isinstance(length, bool) or not isinstance(length, int | float):
        return False
    try:
        value = float(length)
    except OverflowError:
        return False
    return math.isfinite(value) and value >= 0
