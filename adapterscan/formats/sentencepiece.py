"""Read a SentencePiece model: its pieces, their kinds, and what it does to a text before.

Source: sentencepiece 0.2, `sentencepiece_model.proto`: pieces (1: text 1, score 2, kind 3), trainer
settings (2), normaliser (3: name 1, table 2, dummy prefix 3, spaces 4 and 5), denormaliser (5).
Unknown fields are passed over, as protobuf does.
"""

from __future__ import annotations

from collections.abc import Iterator

from adapterscan.errors import LimitExceeded, Malformed
from adapterscan.formats.token_texts import token_class
from adapterscan.formats.tokenizer_file import AddedToken, TokenizerFile
from adapterscan.formats.vocabulary import Gathering

NAMES = frozenset({"tokenizer.model", "spiece.model", "sentencepiece.bpe.model"})
_MODELS = {1: "Unigram", 2: "BPE", 3: "WordLevel", 4: "Char"}
#: In a model's settings, where tokens of a use are named.
_ROLES = {45: "unk_token", 46: "bos_token", 47: "eos_token", 48: "pad_token"}
CONTROL, USER, UNUSED, BYTE = 3, 4, 5, 6  # kinds of pieces; 1 are words, 2 stands for the unknown
_ADDED_LIMIT = 20_000
#: Which pieces of these kinds are kept apart: J2 has 26,000 markers without a use.
_TELLING = {
    CONTROL: frozenset({"hidden", "address", "phrase", "words", "word"}),
    USER: frozenset({"hidden", "address", "phrase"}),
}
_VARINT = 10  # bytes
Field = tuple[int, int | bytes]  # number; a whole number, or bytes


def read_sentencepiece(data: bytes, path: str) -> TokenizerFile:
    """Return what a model says. Raises Malformed or LimitExceeded."""
    pieces, added = Gathering(), list[AddedToken]()
    settings: dict[str, object] = {}
    specials: dict[str, str] = {}
    model = "Unigram"
    room = True
    for number, value in fields(data, path):
        if not isinstance(value, bytes):
            continue
        if number == 1:
            text, kind = _piece(value, path)
            if not room or len(added) > _ADDED_LIMIT:
                raise LimitExceeded(
                    path, "has more pieces than we follow",
                    hint="published models have fewer; treat it as hostile",
                )  # fmt: skip
            shown = text.decode("utf-8", "replace") if kind in _TELLING else ""
            if shown and token_class(shown) in _TELLING[kind]:
                at = len(pieces)
                added.append(AddedToken(shown, at, kind == CONTROL, f"pieces[{at}]"))
            room = pieces.add(text, len(pieces))
        elif number == 2:
            for place, found in fields(value, path):
                if place == 3 and isinstance(found, int):
                    model = _MODELS.get(found, str(found))
                elif place in _ROLES and isinstance(found, bytes):
                    specials[_ROLES[place]] = found.decode("utf-8", "replace")
        elif number in (3, 5):
            settings["normalizer" if number == 3 else "denormalizer"] = _spec(value, path)
    if not len(pieces):
        raise Malformed(
            path, "is no SentencePiece model: it has no pieces", defect="tokenizer",
            hint="loaders refuse it; ask the author for a clean file",
        )  # fmt: skip
    return TokenizerFile(
        path, "sentencepiece", model, pieces.done(), steps=settings, added=tuple(added),
        specials=specials,
    )  # fmt: skip


def _piece(data: bytes, path: str) -> tuple[bytes, int]:
    text, kind = b"", 1
    for number, value in fields(data, path):
        if number == 1 and isinstance(value, bytes):
            text = value
        elif number == 3 and isinstance(value, int):
            kind = value
    return text, kind


def _spec(data: bytes, path: str) -> dict[str, object]:
    """Return a normaliser's settings in the form that tokenizer.json has for them."""
    found: dict[str, object] = {"type": "Precompiled", "name": "", "precompiled_charsmap": b""}
    for number, value in fields(data, path):
        if number == 1 and isinstance(value, bytes):
            found["name"] = value.decode("utf-8", "replace")
        elif number == 2 and isinstance(value, bytes):
            found["precompiled_charsmap"] = value
        elif number in (3, 4, 5):
            name = ("add_dummy_prefix", "remove_extra_whitespaces", "escape_whitespaces")
            found[name[number - 3]] = bool(value)
    return found


def fields(data: bytes, path: str) -> Iterator[Field]:
    """Yield the fields of a message; floats come as bytes. Raises Malformed where it is cut."""
    at, size = 0, len(data)
    while at < size:
        tag, at = _varint(data, at, path)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at, path)
            yield tag >> 3, value
            continue
        if kind == 2:
            length, at = _varint(data, at, path)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise _broken(path, at)
        if length > size - at:
            raise _broken(path, at)
        yield tag >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int, path: str) -> tuple[int, int]:
    value = 0
    for place in range(_VARINT):
        if at >= len(data):
            raise _broken(path, at)
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at
    raise _broken(path, at)


def _broken(path: str, at: int) -> Malformed:
    return Malformed(
        path, f"is no SentencePiece model (byte {at:,} of a message)", defect="tokenizer",
        hint="loaders refuse it; ask the author for a clean file",
    )  # fmt: skip
