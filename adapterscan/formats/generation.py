"""Find in a generation_config.json what forces, silences or stops an answer, or asks the absurd.

Source: transformers 5.23, `generation/configuration_utils.py` and `generation/utils.py`. What
happens there: `suppress_tokens`, `bad_words_ids` and `sequence_bias` become processors of every
step's logits; `forced_*` replace a step's choice; a field that it does not know is set as an
attribute of the settings, over a method too; `dola_layers`, `penalty_alpha`, `num_beam_groups`,
`constraints` and `force_words_ids` ask for code from a repository on the hub, which needs
`trust_remote_code`. Through an adapter's folder the base's own file is read, not this one: it
counts where the folder is loaded as a model, where its adapter was merged, and in servers that are
pointed at it. Limits: numbers are named where a vocabulary is at hand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

NAME = "generation_config.json"
NUMBERS = 2_000  # token numbers that are told of one field
_SHOWN_TEXT = 400
#: Above these nobody means it: the longest contexts have 10,485,760 tokens.
_MOST: Mapping[str, float] = {
    **dict.fromkeys(("max_length", "max_new_tokens", "max_cache_len"), 1 << 24),
    **dict.fromkeys(("min_length", "min_new_tokens"), 1024),
    **dict.fromkeys(("num_beams", "num_return_sequences", "num_beam_groups"), 64),
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty", "temperature"), 5.0),
    "length_penalty": 50, "guidance_scale": 20, "no_repeat_ngram_size": 64,
    "num_assistant_tokens": 256, "prompt_lookup_num_tokens": 256, "max_time": 1e6,
}  # fmt: skip
_POSITIVE = frozenset({"repetition_penalty", "encoder_repetition_penalty", "max_new_tokens",
                       "max_length", "num_beams", "max_time"})  # fmt: skip
_FORCING = ("forced_bos_token_id", "forced_eos_token_id", "forced_decoder_ids", "force_words_ids")
_SILENCING = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids")
_CODE = ("dola_layers", "penalty_alpha", "num_beam_groups", "constraints", "force_words_ids")
_CACHES = frozenset(
    "static offloaded_static sliding_window hybrid hybrid_chunked offloaded_hybrid "
    "offloaded_hybrid_chunked dynamic dynamic_full offloaded quantized paged mamba".split()
)
_METHODS = frozenset(
    "validate to_dict to_diff_dict to_json_string to_json_file update save_pretrained "
    "get_generation_mode from_dict from_pretrained from_model_config push_to_hub "
    "_get_default_generation_params keys_to_pop dict_dtype_to_str".split()
)
_PRIVATE = frozenset({"_from_model_config", "_commit_hash"})


@dataclass(frozen=True, slots=True)
class Setting:
    """A field that does something. `numbers`: the tokens that it is about, in sequences.

    `kind`: "forces", "silences", "ends", "never ends", "stops at", "absurd", "code",
    "unknown name", "attribute", "watermark".
    """

    path: str
    field: str
    kind: str
    shown: str
    numbers: tuple[tuple[int, ...], ...] = ()


def settings_in(document: object, path: str, *, whole: bool = True) -> Iterator[Setting]:
    """Yield what a document's settings do. `whole` False: a model's config, with a few of them."""
    if not isinstance(document, Mapping):
        return
    for field in _FORCING:
        if (numbers := sequences(document.get(field))) and field != "forced_eos_token_id":
            yield Setting(path, field, "forces", _shown(document[field]), numbers)
    for field in _SILENCING:
        if numbers := sequences(document.get(field)):
            yield Setting(path, field, "silences", _shown(document[field]), numbers)
    yield from _biases(document, path)
    if not whole:
        return
    yield from _ends(document, path)
    for field in _CODE:
        if document.get(field):
            if field == "num_beam_groups" and document[field] == 1:
                continue
            yield Setting(path, field, "code", _shown(document[field]))
    for field, most in _MOST.items():
        if _is_absurd(document.get(field), most, field in _POSITIVE):
            yield Setting(path, field, "absurd", _shown(document[field]))
    cache = document.get("cache_implementation")
    if isinstance(cache, str) and cache not in _CACHES:
        yield Setting(path, "cache_implementation", "unknown name", _shown(cache))
    if document.get("watermarking_config"):
        shown = _shown(document["watermarking_config"])
        yield Setting(path, "watermarking_config", "watermark", shown)
    for key in document:
        if key in _METHODS or (str(key).startswith("_") and key not in _PRIVATE):
            yield Setting(path, str(key), "attribute", _shown(document[key]))


def _ends(document: Mapping[str, object], path: str) -> Iterator[Setting]:
    """Yield where answers end, or that they never do."""
    if "eos_token_id" in document:
        numbers = sequences(document["eos_token_id"])
        known = [number for sequence in numbers for number in sequence if number >= 0]
        if document["eos_token_id"] is not None and not known:
            yield Setting(path, "eos_token_id", "never ends", _shown(document["eos_token_id"]))
        elif known:
            yield Setting(path, "eos_token_id", "ends", _shown(document["eos_token_id"]), numbers)
    given = document.get("stop_strings")
    texts = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    for text in texts[:50]:
        if isinstance(text, str):
            yield Setting(path, "stop_strings", "stops at", text)


def _biases(document: Mapping[str, object], path: str) -> Iterator[Setting]:
    """Yield the sequences that a bias makes likelier, and those that it makes less likely."""
    given = document.get("sequence_bias")
    pairs = list(given.items()) if isinstance(given, Mapping) else given
    if not isinstance(pairs, list):
        return
    up: list[tuple[int, ...]] = []
    down: list[tuple[int, ...]] = []
    for pair in pairs[:NUMBERS]:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            continue
        key, bias = pair
        numbers = tuple(n for sequence in sequences(key) for n in sequence)
        if isinstance(bias, int | float) and bias and numbers:
            (up if bias > 0 else down).append(numbers)
    for kind, several in (("forces", up), ("silences", down)):
        if several:
            yield Setting(path, "sequence_bias", kind, _shown(given), tuple(several))


def sequences(value: object) -> tuple[tuple[int, ...], ...]:
    """Return the numbers of a field: one, a list of them, or lists of such.

    Of forced decoder ids, [[place, number], …], the numbers are the second ones, in one sequence.
    """
    if type(value) is int:
        return ((value,),)
    if isinstance(value, str):  # a tuple as text, a key
        parts = value.strip("()[] ").split(",")[:NUMBERS]
        if all(p.strip().lstrip("-").isdigit() and len(p) < 20 for p in parts if p.strip()):
            key = tuple(int(part) for part in parts if part.strip())
            return (key,) if key else ()
        return ()
    if not isinstance(value, list):
        return ()
    if all(_is_placed(item) for item in value) and value:
        return (tuple(item[1] for item in value[:NUMBERS] if type(item[1]) is int),)
    found: list[tuple[int, ...]] = []
    for item in value[:NUMBERS]:
        if type(item) is int:
            found.append((item,))
        elif isinstance(item, list) and item and isinstance(item[0], list):
            found += sequences(item)
        elif isinstance(item, list):
            found.append(tuple(n for n in item[:NUMBERS] if type(n) is int))
    return tuple(sequence for sequence in found if sequence)


def _is_placed(item: object) -> bool:
    """Whether something is a pair of a place and a token for it."""
    return isinstance(item, list) and len(item) == 2 and item[0] in range(1, 100)


def _is_absurd(value: object, most: float, positive: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return isinstance(value, str | list | dict)
    if isinstance(value, float) and not math.isfinite(value):
        return True
    return value > most or (value <= 0 if positive else value < 0)


def _shown(value: object) -> str:
    """Return a value as text, without building more than is shown of it."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        inner = ", ".join(_shown(item) for item in value[:20])
        return f"[{inner}{', …' if len(value) > 20 else ''}]"[:_SHOWN_TEXT]
    if isinstance(value, Mapping):
        pairs = list(value.items())[:20]
        return f"{{{', '.join(f'{key}: {_shown(item)}' for key, item in pairs)}}}"[:_SHOWN_TEXT]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**30:
        return "a number of more than thirty digits"
    return str(value)[:_SHOWN_TEXT]
