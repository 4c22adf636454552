"""Read the tokenizer and the chat templates in a GGUF file's settings.

Source: ggml, docs/gguf.md; llama.cpp, `gguf-py/gguf/constants.py`: `tokenizer.ggml.*`,
`tokenizer.chat_template` and `tokenizer.chat_template.NAME`. A whole tokenizer.json can stand in
`tokenizer.huggingface.json`.
Limits: scores and kinds of tokens are not read.
"""

from __future__ import annotations

from collections.abc import Mapping

from adapterscan.errors import LimitExceeded
from adapterscan.formats.chat_templates import FIELD
from adapterscan.formats.gguf import GgufHeader
from adapterscan.formats.tokenizer_file import TokenizerFile
from adapterscan.formats.vocabulary import TOKENS_LIMIT

TOKENS, MERGES = "tokenizer.ggml.tokens", "tokenizer.ggml.merges"
LISTS = frozenset({TOKENS, MERGES})
_TEMPLATE = "tokenizer.chat_template"
_MODELS = {"gpt2": "BPE", "llama": "BPE", "bert": "WordPiece", "t5": "Unigram"}
_ROLES = {
    "bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "separator": "sep_token",
    "padding": "pad_token", "seperator": "sep_token", "cls": "cls_token", "mask": "mask_token",
}  # fmt: skip


def tokenizer_of(header: GgufHeader, path: str) -> TokenizerFile | None:
    """Return the tokenizer in a GGUF header; None without one. Raises LimitExceeded."""
    if TOKENS not in header.lists:
        return None
    if len(header.lists[TOKENS]) > TOKENS_LIMIT:
        raise LimitExceeded(
            path, f"has more than {TOKENS_LIMIT:,} tokens",
            hint="published models have fewer; treat it as hostile",
        )  # fmt: skip
    vocabulary = header.lists[TOKENS].done()
    merges = header.lists.get(MERGES)
    numbers = {
        role: number
        for name, role in _ROLES.items()
        if type(number := header.fields.get(f"tokenizer.ggml.{name}_token_id")) is int
    }
    specials = {
        role: texts[0] for role, number in numbers.items() if (texts := vocabulary.texts_of(number))
    }
    settings = {
        key: value for key, value in header.fields.items()
        if key.startswith("tokenizer.") and not key.startswith(_TEMPLATE)
    }  # fmt: skip
    model = str(header.fields.get("tokenizer.ggml.model", ""))
    return TokenizerFile(
        path, "gguf", _MODELS.get(model, model), vocabulary, merges.merges() if merges else None,
        specials=specials, settings=settings, repeated=header.repeated, numbers=numbers,
    )  # fmt: skip


def templates_of(header: GgufHeader) -> Mapping[str, object]:
    """Return a header's chat templates in the form of a tokenizer_config.json."""
    named = {
        key.removeprefix(_TEMPLATE).lstrip("."): value
        for key, value in header.fields.items()
        if key.startswith(_TEMPLATE) and isinstance(value, str)
    }
    return {FIELD: named} if named else {}
