"""What a tokenizer's file says, whatever its format: tokens, merges, steps, settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from adapterscan.formats.vocabulary import Merges, Vocabulary

#: The steps of a pipeline, as tokenizer.json calls them.
STEPS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
#: The tokens that a tokenizer has a use for.
ROLES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is looked for before a text is taken apart. `number`: None where untold."""

    text: str
    number: int | None
    special: bool | None
    place: str  # the field


@dataclass(frozen=True, slots=True)
class TokenizerFile:
    """One file. `kind`: tokenizer, settings, vocabulary, merges, sentencepiece, gguf."""

    path: str
    kind: str
    model: str = ""  # BPE, Unigram, WordPiece, WordLevel
    vocabulary: Vocabulary | None = None
    merges: Merges | None = None
    steps: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    added: tuple[AddedToken, ...] = ()
    specials: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    settings: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    repeated: tuple[str, ...] = ()  # fields that stand twice
    numbers: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))  # by role

    def whole(self) -> Vocabulary | None:
        """Return the vocabulary together with the tokens that are added to it."""
        if self.vocabulary is None:
            return None
        known = self.vocabulary
        tokens = [
            (token.text, token.number)
            for token in self.added
            if token.number is not None and known.number_of(token.text) != token.number
        ]
        return known.with_tokens(tokens)
