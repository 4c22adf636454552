"""Read a tokenizer.json: streamed, since it has 262,000 tokens and 514,000 merges in 33 MB.

Source: tokenizers 0.23, `tokenizer/serialization.rs` and `models/*/serialization.rs`. Fields that
stand twice count with the last, as there. Regular expressions in it are texts to us.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adapterscan.errors import Malformed
from adapterscan.formats.json_entries import Entries
from adapterscan.formats.tokenizer_file import STEPS, AddedToken, TokenizerFile
from adapterscan.formats.vocabulary import MERGES_LIMIT, Gathering, Merges, Vocabulary

TOKENIZER_LIMIT = 48 << 20  # bytes; Gemma 3's has 33 MB
ADDED_LIMIT = 20_000  # tokens; Gemma 3 has 6,400
STEP_LIMIT = 2 << 20  # bytes of one step; a table of normal forms has 320 kB
_MODEL = frozenset(
    "type dropout unk_token unk_id continuing_subword_prefix end_of_word_suffix fuse_unk "
    "byte_fallback ignore_merges max_input_chars_per_word".split()
)
_KEPT = (*STEPS, "truncation", "padding")


def read_tokenizer_json(data: bytes, path: str) -> TokenizerFile:
    """Return what the file says. Raises Malformed or LimitExceeded."""
    entries = Entries(data, path, limit=TOKENIZER_LIMIT)
    seen: dict[str, Any] = {}
    repeated: list[str] = []
    readers: dict[str, Callable[[Entries], Any]] = {"added_tokens": _added, "model": _model}
    for key in entries.members():
        if key in seen and len(repeated) < 10:
            repeated.append(key)
        if key in readers:
            seen[key] = readers[key](entries)
        elif key in _KEPT:
            seen[key] = plain(entries.value(STEP_LIMIT))
        else:
            entries.skip()
            seen.setdefault(key, None)
    entries.end()
    if "model" not in seen:
        raise Malformed(
            path, "is no tokenizer: it has no model", defect="tokenizer",
            hint="loaders refuse it; ask the author for a clean file",
        )  # fmt: skip
    model, vocabulary, merges, again = seen["model"]
    return TokenizerFile(
        path, "tokenizer", str(model.get("type") or ""), vocabulary, merges,
        {**{key: seen.get(key) for key in _KEPT}, "model": model},
        tuple(seen.get("added_tokens") or ()), repeated=(*repeated, *again),
    )  # fmt: skip


def _model(entries: Entries) -> tuple[dict[str, Any], Vocabulary | None, Merges | None, list[str]]:
    fields: dict[str, Any] = {}
    vocabulary: Vocabulary | None = None
    merges: Merges | None = None
    seen: set[str] = set()
    again: list[str] = []
    for key in entries.members():
        if key in seen and len(again) < 10:
            again.append(f"model.{key}")
        seen.add(key)
        if key == "vocab":
            vocabulary = read_vocabulary(entries)
        elif key == "merges" and entries.next() == b"[":
            merges = _merges(entries)
        elif key in _MODEL:
            fields[key] = plain(entries.value())
        else:
            entries.skip()
    return fields, vocabulary, merges, again


def read_vocabulary(entries: Entries) -> Vocabulary:
    """Return a vocabulary: an object of numbers, or a list of pieces with their scores."""
    found = Gathering()
    room = True
    if entries.next() == b"{":
        for raw, number in entries.numbers():
            if not room:
                raise entries.over("tokens", len(found))
            room = found.add(raw, number)
    else:
        for raw, _ in entries.pairs():
            if not room:
                raise entries.over("tokens", len(found))
            room = found.add(raw, len(found))
    return found.done()


def _merges(entries: Entries) -> Merges:
    found = Gathering(MERGES_LIMIT)
    room = True
    for first, second in entries.pairs():
        if not room:
            raise entries.over("merges", len(found))
        room = found.add_merge(first if second is None else first + b" " + second)
    return found.merges()


def _added(entries: Entries) -> list[AddedToken]:
    found: list[AddedToken] = []
    if entries.next() != b"[":
        entries.skip()
        return found
    for _ in entries.items():
        item = plain(entries.value())
        if len(found) >= ADDED_LIMIT:
            raise entries.over("added tokens", ADDED_LIMIT)
        if not isinstance(item, dict):
            continue
        number, special = item.get("id"), item.get("special")
        found.append(
            AddedToken(
                str(item.get("content") or ""), number if type(number) is int else None,
                special if isinstance(special, bool) else None, f"added_tokens[{len(found)}]",
            )
        )  # fmt: skip
    return found


def plain(value: Any) -> Any:
    """Return a value with its objects as dictionaries: the last of each key, as loaders take it.

    The cursor gives objects as tuples of pairs; lists stay lists.
    """
    if isinstance(value, tuple):
        return {key: plain(item) for key, item in value}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value
