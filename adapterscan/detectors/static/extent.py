"""Measure how much a config asks for: numbers that set sizes, and what `modules_to_save` names.

Source: peft 0.21.2 allocates and iterates by these numbers before it looks at a tensor
(`pissa_niter_N` runs N steps of a decomposition for each module, on loading too), and wraps every
module whose name ends in an entry of `modules_to_save`: "" or "s" names most of a model.
Limits: names are tried on those of a Llama; a number can be ruinous below what is unusual.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from adapterscan.detectors.detector import Detector
from adapterscan.model import Evidence, Need, Subject
from adapterscan.reading import Contents
from adapterscan.text import printable

_LAYER = "model.layers.0"
_CONTAINERS = ("model", "model.layers", _LAYER, f"{_LAYER}.self_attn", f"{_LAYER}.mlp")
_MODULES = (
    *_CONTAINERS, "model.embed_tokens", "model.norm", "lm_head",
    f"{_LAYER}.input_layernorm", f"{_LAYER}.post_attention_layernorm",
    *(f"{_LAYER}.self_attn.{name}_proj" for name in "qkvo"),
    *(f"{_LAYER}.mlp.{name}_proj" for name in ("gate", "up", "down")),
)  # fmt: skip
#: Numbers that set no size: seeds, and what other facts are about. (Token ids stand in lists.)
_NO_SIZES = re.compile(r".*(?:seed|prng_key|alpha|alpha_pattern)")
_ELSEWHERE = frozenset({"r", "rank_pattern", "layer_replication", "label_mask_value"})
_NITER = re.compile(r"[a-z_]*_niter_([0-9]{1,18})")
#: The most that published configs ask for (n_frequency, token_dim; iterations of PiSSA).
USUAL_SIZE, USUAL_ITERATIONS = 100_000, 64
_HUGE = 10**300


def run(contents: Contents) -> Iterator[Evidence]:
    """Yield `config.huge_number` and `config.saves_broadly`."""
    for config in contents.configs.values():
        for field, number in _numbers(config.raw, ()):
            yield from _number(config.path, field, number, USUAL_SIZE)
        start = config.raw.get("init_lora_weights")
        if isinstance(start, str) and (told := _NITER.fullmatch(start)):
            yield from _number(config.path, "init_lora_weights", int(told[1]), USUAL_ITERATIONS)
        for entry in config.modules_to_save:
            yield from _saved(config.path, entry)


def _number(path: str, field: str, number: float, usual: int) -> Iterator[Evidence]:
    if abs(number) <= usual:
        return
    subject = Subject("field", path, printable(field))
    shown = float(f"{min(abs(number), _HUGE):.3e}")
    yield Evidence("config.huge_number", subject, shown, details={"factor": shown / usual})


def _numbers(value: object, at: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if not _NO_SIZES.fullmatch(key[:80]) and (at or key not in _ELSEWHERE):
                yield from _numbers(item, (*at, key[:80]))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield ".".join(at), value if value == value else 0.0


def _saved(path: str, entry: str) -> Iterator[Evidence]:
    named = [name for name in _MODULES if name.endswith(entry)]
    whole = any(name in named for name in _CONTAINERS)
    if not (whole or len(named) > 1):
        return
    details: Mapping[str, Any] = {"entry": printable(entry), "whole": whole}
    subject = Subject("field", path, f"modules_to_save[{printable(entry, 60)}]")
    yield Evidence("config.saves_broadly", subject, len(named), "modules", details)


DETECTOR = Detector(
    "extent", 1, frozenset({Need.FILES}), "how much the configuration asks for", run,
    takes=lambda contents, _: contents.configs,
)  # fmt: skip
