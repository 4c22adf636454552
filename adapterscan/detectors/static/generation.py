"""Say what settings of generation do to answers: tokens forced or forbidden, where they end.

Source: transformers 5.23, `generation/`; `formats/generation.py` says what happens with each field.
Limits: tokens are named by a vocabulary in the same folder, or the base's. Whether a loader reads
the file depends on how the adapter is loaded; through PEFT it does not. Settings that servers have
in formats of their own are not read.
"""

from __future__ import annotations

from collections.abc import Iterator

from adapterscan.detectors.detector import Detector
from adapterscan.model import Evidence, Need
from adapterscan.reading import Contents


def run(contents: Contents) -> Iterator[Evidence]:
    """Yield `generation.setting`: the field, its value, what it does and to which tokens."""
    contents.tokenizers.finish()
    yield from contents.tokenizers.generation


DETECTOR = Detector(
    "generation", 1, frozenset({Need.FILES}), "settings of generation", run,
    takes=lambda contents, _: contents.tokenizers.settings,
)  # fmt: skip
