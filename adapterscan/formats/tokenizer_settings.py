"""Read the smaller files of a tokenizer: settings, names of tokens, plain vocabularies and merges.

Source: transformers 5.23, `tokenization_utils_base.py`: `tokenizer_config.json` gives arguments of
the tokenizer's class, `special_tokens_map.json` and `added_tokens.json` are read where that has no
`added_tokens_decoder`; `vocab.json` with `merges.txt`, or `vocab.txt`, where there is no
tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from adapterscan.errors import LimitExceeded, Malformed
from adapterscan.formats.json_entries import Entries
from adapterscan.formats.strict_json import not_utf8
from adapterscan.formats.tokenizer_file import ROLES, AddedToken, TokenizerFile
from adapterscan.formats.tokenizer_json import ADDED_LIMIT, TOKENIZER_LIMIT, read_vocabulary
from adapterscan.formats.vocabulary import MERGES_LIMIT, Gathering

SETTINGS = frozenset({"tokenizer_config.json", "special_tokens_map.json"})
VOCABULARIES = frozenset({"vocab.json", "added_tokens.json"})
LINES = frozenset({"vocab.txt", "merges.txt"})
#: Lists, or dictionaries by name, of further tokens with a use.
_FURTHER = ("additional_special_tokens", "extra_special_tokens")
_DECODER = "added_tokens_decoder"


def read_settings(document: object, path: str) -> TokenizerFile:
    """Return what settings say: tokens by role, further tokens, everything else as it is."""
    if not isinstance(document, dict):
        return TokenizerFile(path, "settings")
    specials = {
        role: text for role in ROLES if (text := _text(document.get(role))) is not None
    }  # fmt: skip
    added = list(_added(document))
    if len(added) > ADDED_LIMIT:
        raise LimitExceeded(
            path, f"has more than {ADDED_LIMIT:,} added tokens",
            hint="published tokenizers have fewer; treat it as hostile",
        )  # fmt: skip
    apart = {*ROLES, *_FURTHER, _DECODER, "chat_template"}
    settings = {str(key): value for key, value in document.items() if key not in apart}
    return TokenizerFile(path, "settings", added=tuple(added), specials=specials, settings=settings)


def _text(value: object) -> str | None:
    """Return a token's text: it is one, or an object that has it."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _added(document: Mapping[str, object]) -> Iterator[AddedToken]:
    decoder = document.get(_DECODER)
    for key, value in decoder.items() if isinstance(decoder, Mapping) else ():
        text = _text(value)
        if text is None or not isinstance(value, Mapping):
            continue
        number = int(key) if key.isascii() and key.isdigit() and len(key) < 19 else None
        special = value.get("special")
        yield AddedToken(
            text, number, special if isinstance(special, bool) else None, f"{_DECODER}.{key[:20]}"
        )
    for name in _FURTHER:
        further = document.get(name)
        items = further.items() if isinstance(further, Mapping) else enumerate(_list(further))
        for key, value in items:
            text = _text(value)
            if text is not None:
                yield AddedToken(text, None, True, f"{name}[{str(key)[:40]}]")


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def read_numbers(data: bytes, path: str) -> TokenizerFile:
    """Return a vocabulary that is an object of numbers: vocab.json, added_tokens.json."""
    entries = Entries(data, path, limit=TOKENIZER_LIMIT)
    if entries.next() != b"{":
        raise Malformed(
            path, "is no object of tokens with their numbers", defect="tokenizer",
            hint="loaders refuse it; ask the author for a clean file",
        )  # fmt: skip
    found = read_vocabulary(entries)
    entries.end()
    if not path.rpartition("/")[2].lower().startswith("added"):
        return TokenizerFile(path, "vocabulary", vocabulary=found)
    if len(found) > ADDED_LIMIT:
        raise entries.over("added tokens", ADDED_LIMIT)
    added = (
        AddedToken(found.text(place), int(number), None, f"[{number}]")
        for place, number in enumerate(found.ids.tolist())
    )
    return TokenizerFile(path, "settings", added=tuple(added))


def read_lines(data: bytes, path: str) -> TokenizerFile:
    """Return a vocabulary or merges that stand one on a line. Raises Malformed or LimitExceeded."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(path, error.start) from error
    merging = path.rpartition("/")[2].lower() == "merges.txt"
    found = Gathering(MERGES_LIMIT) if merging else Gathering()
    room = True
    for line in text.split("\n"):  # \x85 and the like are letters here
        line = line.rstrip("\r")
        if merging and (not line or (not len(found) and line.startswith("#version"))):
            continue
        if not room:
            raise LimitExceeded(
                path, f"has more than {len(found):,} lines",
                hint="published tokenizers have fewer; treat it as hostile",
            )  # fmt: skip
        raw = line.encode()
        room = found.add_merge(raw) if merging else found.add(raw, len(found))
    if merging:
        return TokenizerFile(path, "merges", merges=found.merges())
    return TokenizerFile(path, "vocabulary", vocabulary=found.done())
