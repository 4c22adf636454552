"""Say how a tokenizer beside an adapter differs from the base's own: which tokens, steps, settings.

The base was trained with its own. A vocabulary in which two words have changed places makes it read
the one where the user wrote the other, and no weight shows it. Equal files give no fact at all;
what trainers' saves change (order, layout, defaults that are written out, a pad token) gives none
either, or one of class "added" or "pad".

Limits: a vocabulary in a GGUF file has names for its unused places that other files lack; those are
left out. Tables of normal forms are compared as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice

from adapterscan.formats.token_texts import shown, token_class
from adapterscan.formats.tokenizer_facts import subject
from adapterscan.formats.tokenizer_file import STEPS, TokenizerFile
from adapterscan.formats.tokenizer_steps import rewrites_of
from adapterscan.formats.trees import differences_in
from adapterscan.formats.vocabulary import Compared, Vocabulary
from adapterscan.model import Evidence, Scalar, Subject
from adapterscan.onbase.documents import BaseTokenizer
from adapterscan.text import printable

MOST = 50  # tokens that are named, and steps
_ANOTHER = 0.5  # share of the tokens at other numbers that makes it another tokenizer
_UNUSED = re.compile(r"\[PAD\d+\]|\[unused\d+\]|<unused\d+>|<0x[0-9A-F]{2}>|<dummy\d+>")
#: Settings that change what a text becomes. Others are the business of whoever saves.
_TELLING = frozenset(
    "add_bos_token add_eos_token add_prefix_space do_lower_case split_special_tokens legacy "
    "strip_accents clean_up_tokenization_spaces use_default_system_prompt".split()
)
#: What transformers takes where one of them is not there.
_DEFAULTS: Mapping[str, object] = {
    "split_special_tokens": False, "do_lower_case": False, "add_eos_token": False,
    "use_default_system_prompt": False,
}  # fmt: skip
_GENERIC = frozenset({"TokenizersBackend", "PreTrainedTokenizer", "PythonBackend", "Tokenizer", ""})


def differences(file: TokenizerFile, base: BaseTokenizer) -> Iterator[Evidence]:
    """Yield what differs in one file. The base must have been loaded."""
    known = base.vocabulary
    if file.vocabulary is not None and known is not None:
        yield from _vocabularies(file, base, known)
    if file.kind == "tokenizer" and (own := base.of("tokenizer")) is not None:
        yield from islice(_steps(file, own), MOST)
        yield from islice(_flags(file, own), MOST)
    if file.kind == "sentencepiece" and (own := base.of("sentencepiece")) is not None:
        yield from islice(_steps(file, own, ("normalizer", "denormalizer")), MOST)
    yield from _specials(file, base)
    if file.kind == "settings" and base.settings:
        yield from _settings(file, base)


def _vocabularies(
    file: TokenizerFile, base: BaseTokenizer, known: Vocabulary
) -> Iterator[Evidence]:
    own = file.whole()
    other = base.of(file.kind)
    if own is None:
        return
    if file.kind in ("vocabulary", "sentencepiece") and other is not None:
        known = other.whole() or known
    found = own.compare(known, MOST)
    gone = [text for text, _ in found.gone if not _UNUSED.fullmatch(text)]
    kind = _kind(found, bool(gone))
    if kind:
        yield Evidence(
            "tokenizer.vocabulary_differs", Subject("file", file.path), found.moved, "tokens",
            {
                "class": kind, "tokens": len(own), "base_tokens": len(known),
                "added": found.only_here, "removed": found.only_there,
                "first_added": ", ".join(shown(text, 40) for text, _ in found.new[:5]),
                "first_removed": ", ".join(shown(text, 40) for text in gone[:5]),
            },
        )  # fmt: skip
    if kind == "another":
        return
    for move in found.moves:
        means = known.texts_of(move.here)
        yield Evidence(
            "tokenizer.moved_token", subject(file, f"vocab[{shown(move.text, 60)}]"), move.here, "",
            {
                "token": shown(move.text), "base_number": move.there,
                "read_as": shown(means[0]) if means else None, "class": token_class(move.text),
            },
        )  # fmt: skip
    yield from _merges(file, base)


def _kind(found: Compared, gone: bool) -> str:
    """Return "another", "moved", "removed", "added" or ""."""
    total = found.common + found.only_there
    if found.moved > _ANOTHER * max(found.common, 1) or found.common < _ANOTHER * total:
        return "another"
    if found.moved:
        return "moved"
    return "removed" if gone else "added" if found.only_here else ""


def _merges(file: TokenizerFile, base: BaseTokenizer) -> Iterator[Evidence]:
    other = base.of(file.kind) or base.of("tokenizer") or base.of("gguf")
    mine, theirs = file.merges, other.merges if other else None
    if mine is None or theirs is None:
        return
    rank = mine.first_difference(theirs)
    if rank is None:
        return
    yield Evidence(
        "tokenizer.merges_differ", Subject("file", file.path), rank, "rank",
        {
            "here": shown(mine.text(rank)), "base": shown(theirs.text(rank)),
            "added": mine.absent_from(theirs), "removed": theirs.absent_from(mine),
        },
    )  # fmt: skip


def _steps(
    file: TokenizerFile, own: TokenizerFile, parts: tuple[str, ...] = (*STEPS, "model")
) -> Iterator[Evidence]:
    for part in parts:
        here, there = file.steps.get(part), own.steps.get(part)
        apart = list(islice(differences_in(here, there), MOST))
        if not apart:
            continue
        known = set(rewrites_of(part, there))
        new = [found for found in rewrites_of(part, here) if found not in known]
        place, left, right = apart[0]
        yield Evidence(
            "tokenizer.part_differs", subject(file, part + place), len(apart), "fields",
            {
                "part": part, "here": printable(left, 120), "base": printable(right, 120),
                "class": "rewrites" if new else "form",
            },
        )  # fmt: skip


def _flags(file: TokenizerFile, own: TokenizerFile) -> Iterator[Evidence]:
    """Yield tokens that have another use: special ones are cut out of texts and answers."""
    theirs = {token.text: token for token in own.added}
    for token in file.added:
        other = theirs.get(token.text)
        if other is not None and other.special != token.special:
            yield Evidence(
                "tokenizer.part_differs", subject(file, f"{token.place}.special"), 1, "fields",
                {
                    "part": "added_tokens", "class": "form",
                    "here": f"{shown(token.text, 60)}: special {str(token.special).lower()}",
                    "base": f"{shown(token.text, 60)}: special {str(other.special).lower()}",
                },
            )  # fmt: skip


def _specials(file: TokenizerFile, base: BaseTokenizer) -> Iterator[Evidence]:
    theirs = base.specials
    for role, text in file.specials.items():
        other = theirs.get(role)
        if other is None or other == text:
            continue
        details: Mapping[str, Scalar] = {
            "role": role, "base": shown(other),
            "class": "pad" if role == "pad_token" else token_class(text),
        }  # fmt: skip
        yield Evidence("tokenizer.special_differs", subject(file, role), shown(text), "", details)


def _settings(file: TokenizerFile, base: BaseTokenizer) -> Iterator[Evidence]:
    if not file.path.endswith("tokenizer_config.json"):
        return
    for name in sorted(_TELLING):
        here = file.settings.get(name, _DEFAULTS.get(name))
        there = base.settings.get(name, _DEFAULTS.get(name))
        told = name in _DEFAULTS or (name in file.settings and name in base.settings)
        if told and bool(here) is not bool(there):
            yield _setting(file, name, here, there)
    here, there = (_class(s.get("tokenizer_class")) for s in (file.settings, base.settings))
    if here != there and here not in _GENERIC and there not in _GENERIC:
        yield _setting(file, "tokenizer_class", here, there)


def _setting(file: TokenizerFile, name: str, here: object, there: object) -> Evidence:
    details: Mapping[str, Scalar] = {
        "part": "settings", "here": printable(str(here), 120), "base": printable(str(there), 120),
        "class": "form",
    }  # fmt: skip
    return Evidence("tokenizer.part_differs", subject(file, name), 1, "fields", details)


def _class(name: object) -> str:
    return str(name or "").removesuffix("Fast")
