"""PEFT's tuners whose ΔW depends on the weight, or on its size: what they have, what they do to W.

`METHODS` lists them by `peft_type`. Without the base a strength can be told of some; with it, ΔW.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from adapterscan.formats.config import AdapterConfig
from adapterscan.formats.deltas import Problem
from adapterscan.formats.patterns import Matches
from adapterscan.formats.peft_keys import Key
from adapterscan.formats.transforms import outputs, reflection, rotation, scaling, sized
from adapterscan.formats.transforms.transform import Method, Transform
from adapterscan.formats.tuners import sites

METHODS: Mapping[str, Method] = {
    "BOFT": rotation.BOFT,
    "DEFT": reflection.DEFT,
    "FOURIERFT": sized.FOURIERFT,
    "GLORA": outputs.GLORA,
    "HIRA": scaling.HIRA,
    "HRA": reflection.HRA,
    "IA3": scaling.IA3,
    "MISS": sized.MISS,
    "OFT": rotation.OFT,
    "RANDLORA": sized.RANDLORA,
    "ROAD": outputs.ROAD,
    "SUPERTUNING": sized.SUPERTUNING,
    "WAVEFT": sized.WAVEFT,
}

BY_KIND: Mapping[str, Method] = {method.kind: method for method in METHODS.values()}


def locate(
    method: Method, config: AdapterConfig, keys: Sequence[Key], patterns: Mapping[str, Matches]
) -> Iterator[Transform | Problem]:
    """Yield what changes each weight of `keys`, and for modules where nothing does why."""
    return sites(method, method.locate, config, keys, patterns)
