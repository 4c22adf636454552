"""Read a file of a tokenizer by its name: which reader it takes, and how large it may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

from adapterscan.formats import sentencepiece, strict_json, tokenizer_settings
from adapterscan.formats.tokenizer_file import TokenizerFile
from adapterscan.formats.tokenizer_json import TOKENIZER_LIMIT, read_tokenizer_json

SETTINGS_LIMIT = 8 << 20  # bytes; a megabyte is much


def _settings(data: bytes, path: str) -> TokenizerFile:
    document = strict_json.parse(data, path, limit=SETTINGS_LIMIT)
    return tokenizer_settings.read_settings(document, path)


_READERS: Mapping[str, tuple[Callable[[bytes, str], TokenizerFile], int]] = {
    "tokenizer.json": (read_tokenizer_json, TOKENIZER_LIMIT),
    **dict.fromkeys(tokenizer_settings.SETTINGS, (_settings, SETTINGS_LIMIT)),
    **dict.fromkeys(
        tokenizer_settings.VOCABULARIES, (tokenizer_settings.read_numbers, TOKENIZER_LIMIT)
    ),
    **dict.fromkeys(tokenizer_settings.LINES, (tokenizer_settings.read_lines, TOKENIZER_LIMIT)),
    **dict.fromkeys(sentencepiece.NAMES, (sentencepiece.read_sentencepiece, TOKENIZER_LIMIT)),
}


def limit_of(path: str) -> int | None:
    """Return how many bytes a tokenizer's file may have; None for one that is not read."""
    found = _READERS.get(PurePosixPath(path).name.lower())
    return found[1] if found else None


def read_tokenizer(data: bytes, path: str) -> TokenizerFile:
    """Return what a file says, one that `limit_of` knows. Raises Malformed or LimitExceeded."""
    return _READERS[PurePosixPath(path).name.lower()][0](data, path)
