"""Find the steps of a tokenizer that rewrite texts: what they look for, and what they write.

A tokenizer.json has four chains: a normaliser and a pre-tokeniser before the model, a
post-processor and a decoder after it. Honest ones change spaces, marks and forms of letters. One
that replaces words changes every prompt, or every answer, and no weight shows it.

Source: tokenizers 0.23, `normalizers`, `pre_tokenizers`, `processors`, `decoders`.
Limits: patterns are texts here and never matched. One that finds words without a letter in it, by
classes alone, is told by its class (`any`), not by what it finds. What a pre-tokeniser keeps with
`invert` is not followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adapterscan.formats.charsmap import rewrites
from adapterscan.formats.token_texts import LONGEST, SPACES, is_sign, says, token_class

_DEPTH = 32
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_QUOTES = frozenset({("``", '"'), ("''", '"')})  # as XLNet and others write quotation marks
#: tokenizers 0.23 reads steps without a type (or with one in lower case) by their fields.
_BY_FIELDS = (
    (("pattern", "behavior"), "Split"), (("pattern", "content"), "Replace"),
    (("content", "start", "stop"), "Strip"), (("prepend",), "Prepend"),
    (("pad_token", "word_delimiter_token"), "CTC"), (("prefix", "cleanup"), "WordPiece"),
    (("suffix",), "BPEDecoder"), (("delimiter",), "CharDelimiterSplit"),
    (("precompiled_charsmap",), "Precompiled"), (("replacement",), "Metaspace"),
    (("single", "pair"), "TemplateProcessing"), (("sep", "cls"), "BertProcessing"),
)  # fmt: skip
_CHAINS = ("normalizers", "pretokenizers", "processors", "decoders")
_ESCAPE = re.compile(r"\\(?:x\{([0-9A-Fa-f]{1,6})\}|x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4}))")
_CLASSES = re.compile(
    r"\\[pP]\{\^?[\w= ]{1,40}\}|\\[a-zA-Z]|\[\[?:\^?\w{1,10}:\]\]?|\(\?[a-zA-Z-]{1,8}[:)]"
    r"|\(\?<\w{1,40}>|\{\d*,?\d*\}|[a-zA-Z0-9]-[a-zA-Z0-9]"
)
_ANY = re.compile(
    r"\\[wSdDWHRXNO]|\\[pP]\{\^?(?!Z|C|Mn|M\b|P|S)[\w= ]|\\P\{|\[\^"
    r"|:(?:alpha|alnum|word|graph|print|digit|lower|upper):|[a-zA-Z0-9]-[a-zA-Z0-9]"
)
_DOT = re.compile(r"(?<!\\)\.")


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A step that rewrites texts. `pattern`: what it looks for, `writes`: what stands there then.

    `finds`: "words", "sign", "letter" (one that is written as another), "any" (by a class),
    "table", "start" or "". `kind`: "address", "hidden", "words" (it writes some), "letters",
    "signs", "removes" (words), "removes by class".
    """

    place: str
    step: str
    pattern: str
    regex: bool
    writes: str
    finds: str
    kind: str


def rewrites_of(part: str, tree: object) -> Iterator[Rewrite]:
    """Yield the rewrites of one chain: `part` is its field in tokenizer.json."""
    for place, step in steps_of(part, tree):
        kind = step_type(step)
        match kind:
            case "Replace":
                pattern, regex = _pattern(step.get("pattern"))
                yield from _rewrite(place, "Replace", pattern, regex, str(step.get("content", "")))
            case "Prepend":
                yield from _start(place, "Prepend", step.get("prepend"))
            case "Metaspace":
                yield from _mark(place, "Metaspace", step.get("replacement"), " ")
            case "Punctuation" if step.get("behavior") == "Removed":
                yield Rewrite(place, "Punctuation", "punctuation", False, "", "sign", "signs")
            case "Strip" if "content" in step:
                yield from _mark(place, "Strip", step.get("content"), "")
            case "WordPiece" if part == "decoder":
                yield from _mark(place, "WordPiece", step.get("prefix"), "")
            case "BPEDecoder":
                yield from _mark(place, "BPEDecoder", step.get("suffix"), " ")
            case "CTC":
                yield from _mark(place, "CTC", step.get("pad_token"), "")
                yield from _mark(place, "CTC", step.get("word_delimiter_token"), " ")
            case "Split" | "CharDelimiterSplit" if _removes(step):
                given = step.get("pattern", step.get("delimiter"))
                pattern, regex = _pattern(given)
                yield from _rewrite(place, str(kind), pattern, regex, "")
            case "Precompiled":
                yield from _table(place, step.get("precompiled_charsmap"))


def steps_of(part: str, tree: object, depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each step below a field with its place, the chain itself left out."""
    if not isinstance(tree, Mapping) or depth > _DEPTH:
        return
    chains = [name for name in _CHAINS if isinstance(tree.get(name), list)]
    for name in chains:
        for at, inner in enumerate(tree[name]):
            yield from steps_of(f"{part}.{name}[{at}]", inner, depth + 1)
    if not chains:
        yield part, tree


def step_type(step: Mapping[str, Any]) -> str:
    """Return what a step is: loaders go by its fields where its type is missing, or is none."""
    named = step.get("type")
    if isinstance(named, str) and named[:1].isupper():
        return named
    for fields, kind in _BY_FIELDS:
        if all(field in step for field in fields):
            return kind
    return str(named or "")


def finds(pattern: str, regex: bool) -> str:
    """Return what a pattern finds: "words", "any" (words, by a class), or "" for marks alone."""
    if len(pattern) > LONGEST:
        return "words"
    if not regex:
        return "words" if says(pattern) else "sign" if is_sign(pattern) else ""
    decoded = _ESCAPE.sub(_letter, pattern)
    if any(letter.isalnum() and letter not in SPACES for letter in _CLASSES.sub(" ", decoded)):
        return "words"
    return "any" if _ANY.search(decoded) or _DOT.search(_CLASSES.sub(" ", decoded)) else ""


def _letter(found: re.Match[str]) -> str:
    code = int(found[1] or found[2] or found[3], 16)
    return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else " "


def _pattern(given: object) -> tuple[str, bool]:
    """Return a pattern's text and whether it is a regular expression."""
    if isinstance(given, Mapping):
        regex = given.get("Regex")
        return (str(regex), True) if regex is not None else (str(given.get("String", "")), False)
    return str(given or ""), False


def _removes(step: Mapping[str, Any]) -> bool:
    if step.get("type") == "CharDelimiterSplit":
        return True
    return step.get("behavior") == "Removed" and not step.get("invert")


def _rewrite(place: str, step: str, pattern: str, regex: bool, writes: str) -> Iterator[Rewrite]:
    found, kind = finds(pattern, regex), _written(writes)
    if _BYTE.fullmatch(pattern) and _BYTE.fullmatch(writes) and pattern != writes:
        found, kind = "words", "words"
    if found == "sign" and not kind:
        if (pattern, writes) not in _QUOTES and pattern != writes:
            yield Rewrite(place, step, pattern, regex, writes, found, "signs")
        return
    if not kind and not found:
        return
    if not kind:
        kind = "removes" if found == "words" else "removes by class"
    elif kind == "words" and _one_letter(pattern, writes, regex):
        found, kind = "letter", "letters"
    yield Rewrite(place, step, pattern, regex, writes, found, kind)


def _written(text: str) -> str:
    """Return what is in a text that a step writes: "address", "hidden", "words", or ""."""
    kind = token_class(text) if text else ""
    if kind in ("address", "hidden"):
        return kind
    return "words" if says(text) or kind == "phrase" else ""


def _one_letter(pattern: str, writes: str, regex: bool) -> bool:
    """Whether one letter is written as another form: `ё` as `е`, `ß` as `ss`."""
    return not regex and len(pattern) == 1 and not pattern.isascii() and len(writes) <= 2


def _start(place: str, step: str, given: object) -> Iterator[Rewrite]:
    text = str(given or "")
    if kind := _written(text):
        yield Rewrite(place, step, "", False, text, "start", kind)


def _mark(place: str, step: str, given: object, writes: str) -> Iterator[Rewrite]:
    """Yield a step that takes a mark off, where the mark is a word."""
    text = str(given or "")
    if says(text):
        yield Rewrite(place, step, text, False, writes, "words", "removes")


def _table(place: str, given: object) -> Iterator[Rewrite]:
    for found, written in rewrites(given):
        kind = _written(written) or "removes"
        yield Rewrite(place, "Precompiled", found, False, written, "table", kind)
