"""Say which layout a set of tensor names follows, by content, with the evidence for the decision.

Only PEFT's layout is turned into deltas so far. The others are named, so that a report can say what
it did not analyse; a file is never taken for clean because we could not read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from adapterscan.formats.peft_types import ALL_PARTS
from adapterscan.formats.tensors import TensorInfo

#: (layout, pattern of a tensor name). Our own patterns, linear in the length of the name.
_MARKS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("kohya", re.compile(r"(?:lora|lycoris)_(?:unet|te\d?|transformer)_")),
    ("LyCORIS", re.compile(r"lycoris_")),
    (
        "diffusers",
        re.compile(r".*(?:_lora\.(?:down|up)|\.lora\.(?:down|up)|\.lora_linear_layer\.)"),
    ),
    ("diffusers", re.compile(r"(?:unet|transformer(?:_2)?|text_encoder(?:_2)?)\..*lora_[AB]")),
    ("AI-toolkit or ComfyUI", re.compile(r"diffusion_model\.")),
    ("MLX", re.compile(r".*\.lora_[ab]$")),
    ("cloneofsimo", re.compile(r"(?:unet|text_encoder)(?::\d+)+:(?:up|down)$")),
    ("LoRA-ViT", re.compile(r"w_[ab]_\d+$")),
    ("GGUF LoRA", re.compile(r".*\.weight\.lora_[ab]$")),
)


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout's name ("PEFT", "kohya", …, "unknown") and a tensor name that shows it."""

    name: str
    shown_by: str = ""


def recognise(tensors: Iterable[TensorInfo]) -> Layout:
    """Return the layout that most names of `tensors` follow; "unknown" when none is recognised."""
    votes: dict[str, list[str]] = {}
    for tensor in tensors:
        layout = _layout(tensor.name)
        if layout:
            votes.setdefault(layout, []).append(tensor.name)
    if not votes:
        return Layout("unknown")
    name = max(votes, key=lambda key: len(votes[key]))
    return Layout(name, votes[name][0])


def _layout(name: str) -> str:
    for layout, pattern in _MARKS:
        if pattern.match(name):
            return layout
    return "PEFT" if not ALL_PARTS.isdisjoint(name.split(".")) else ""
