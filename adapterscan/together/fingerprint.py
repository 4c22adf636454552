"""A fingerprint of an adapter: enough of every ΔW to know it again, and far too little to run it.

Per module: ‖ΔW‖, the leading singular values, and the sketch S = Uᵀ·ΔW·V (8, 8) for fixed random
signs U (d_out, 8) and V (d_in, 8), as float16. E⟨S₁, S₂⟩ = 64·⟨ΔW₁, ΔW₂⟩, so that cosines between
adapters come from fingerprints alone: copies are exactly parallel whatever was done to their
factors, unrelated ones differ from 0 by about 1/8 a module. Source: Johnson & Lindenstrauss 1984,
on both sides; Achlioptas 2003 for signs. A sketched cosine is never taken for more than spectra
allow (von Neumann's trace inequality).
Limits: the signs are public. Whoever knows them can change ΔW where no sketch looks; the SHA-256
that stands beside it says whether bytes are the same.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapterscan.errors import AdapterscanError, BadFingerprint
from adapterscan.formats import strict_json
from adapterscan.lowrank import F64, Array, LowRank
from adapterscan.text import printable
from adapterscan.together.algebra import leading
from adapterscan.together.relation import Likeness

FORMAT = "adapterscan-fingerprints/1"
FILE_LIMIT = 64 << 20
VALUES = 3_000_000  # in a file: a module has a dozen
SIDE = 8  # of a sketch
SPECTRUM = 8  # singular values that are kept
_DIGITS = 4
_BLOCK = 1 << 15  # columns that are widened at a time


@dataclass(frozen=True, slots=True)
class ModulePrint:
    """What is kept of one ΔW. `spectrum` is relative to `norm`, descending; `sketch` has norm 1."""

    shape: tuple[int, int]  # (d_out, d_in)
    norm: float
    spectrum: tuple[float, ...]
    sketch: F64  # (SIDE²,); zero for a ΔW that is

    def ceiling(self, other: ModulePrint) -> float:
        """Return the largest cosine that the two spectra allow, 0 to 1."""
        pairs = zip(self.spectrum, other.spectrum, strict=False)
        kept = sum(a * b for a, b in pairs)
        count = min(len(self.spectrum), len(other.spectrum))
        rest = [max(0.0, 1.0 - sum(s**2 for s in p.spectrum[:count])) for p in (self, other)]
        return min(1.0, kept + math.sqrt(rest[0] * rest[1]))


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """An adapter's modules by their names from the list of layers on."""

    name: str
    sha256: str  # of the weight file
    base_model: str | None
    modules: Mapping[str, ModulePrint]


def module_print(delta: LowRank) -> ModulePrint:
    """Return the fingerprint of one ΔW. Raises ValueError where it is no finite numbers."""
    norm, sigma = leading(delta, SPECTRUM)
    shape = (delta.b.shape[0], delta.a.shape[1])
    if not norm:
        return ModulePrint(shape, 0.0, (), np.zeros(SIDE * SIDE))
    left = _projected(delta.b.T, _signs("outputs", shape[0]))
    right = _projected(delta.a, _signs("inputs", shape[1]))
    sketch = (delta.scaling * (left.T @ right)).reshape(-1)
    size = float(np.linalg.norm(sketch))
    unit = _rounded(sketch / size) if size else np.zeros(SIDE * SIDE)
    relative = tuple(round(value / norm, _DIGITS) for value in sigma)
    return ModulePrint(shape, float(f"{norm:.6g}"), relative, unit)


def likeness(module: str, first: ModulePrint, other: ModulePrint) -> Likeness:
    """Return how two ΔW of equal shape lie to each other, as their fingerprints say."""
    sizes = float(np.linalg.norm(first.sketch)), float(np.linalg.norm(other.sketch))
    cosine = float(first.sketch @ other.sketch) / (sizes[0] * sizes[1]) if all(sizes) else 0.0
    most = first.ceiling(other)
    inner = max(-most, min(most, cosine)) * first.norm * other.norm
    return Likeness(module, inner, (first.norm, other.norm), 1.0 / SIDE)


def written(prints: Iterable[Fingerprint]) -> Iterator[str]:
    """Yield the JSON of fingerprints, a module in a line; the same fingerprints, the same bytes."""
    yield f'{{"format": "{FORMAT}", "adapters": ['
    for number, item in enumerate(prints):
        head = {"name": item.name, "sha256": item.sha256, "base_model": item.base_model}
        yield f"{',' if number else ''}\n {json.dumps(head)[:-1]}, "
        modules = [f"  {json.dumps(n)}: {_module(m)}" for n, m in sorted(item.modules.items())]
        yield '"modules": {\n' + ",\n".join(modules) + "}}"
    yield "\n]}\n"


def read_fingerprints(path: Path) -> tuple[Fingerprint, ...]:
    """Return the fingerprints in a file. Raises BadFingerprint for anything else than that."""
    try:
        if path.stat().st_size > FILE_LIMIT:
            raise BadFingerprint(f"{path} is too large for fingerprints", hint="split it")
        found = strict_json.parse(path.read_bytes(), str(path), limit=FILE_LIMIT, values=VALUES)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ValueError(f"is not of the format {FORMAT}")
        return tuple(_fingerprint(item) for item in found["adapters"])
    except OSError as error:
        reason = f"{path} cannot be read ({error.strerror})"
        raise BadFingerprint(reason, hint="check --known") from error
    except BadFingerprint:
        raise
    except (
        AdapterscanError, ValueError, KeyError, TypeError, AttributeError, OverflowError,
    ) as error:  # fmt: skip
        raise BadFingerprint(
            f"{path} holds no fingerprints: {printable(str(error))}",
            hint="make it with: adapterscan compare TARGET… --save FILE",
        ) from error


def _module(item: ModulePrint) -> str:
    data = item.sketch.astype("<f2").tobytes()
    return json.dumps(
        {
            "shape": item.shape, "norm": item.norm, "spectrum": item.spectrum,
            "sketch": base64.b64encode(data).decode(),
        }
    )  # fmt: skip


def _fingerprint(item: Any) -> Fingerprint:
    modules = {str(name): _module_print(found) for name, found in item["modules"].items()}
    base = item["base_model"]
    name, sha256 = str(item["name"]), str(item["sha256"])
    return Fingerprint(name, sha256, str(base) if base is not None else None, modules)


def _module_print(item: Any) -> ModulePrint:
    d_out, d_in = (int(size) for size in item["shape"])
    numbers = [float(item["norm"]), *map(float, item["spectrum"])]
    data = base64.b64decode(item["sketch"], validate=True)
    if len(data) != 2 * SIDE * SIDE or len(numbers) > SPECTRUM + 1:
        raise ValueError("a module has a sketch or a spectrum of another length")
    sketch = np.frombuffer(data, "<f2").astype(np.float64)
    if not np.isfinite(sketch).all() or not all(0 <= n < math.inf for n in numbers):
        raise ValueError("a module has numbers that are not finite")
    return ModulePrint((d_out, d_in), numbers[0], tuple(numbers[1:]), sketch)


def _rounded(values: F64) -> F64:
    return values.astype(np.float16).astype(np.float64)


@lru_cache(maxsize=16)
def _signs(side: str, dimension: int) -> npt.NDArray[np.int8]:
    """Return fixed random signs (dimension, SIDE). By a hash: NumPy's streams may change."""
    data = hashlib.shake_256(f"{FORMAT} {side} {dimension}".encode()).digest(dimension * SIDE // 8)
    bits = np.unpackbits(np.frombuffer(data, np.uint8)).reshape(dimension, SIDE)
    return (2 * bits.astype(np.int8) - 1).astype(np.int8)


def _projected(factor: Array, signs: npt.NDArray[np.int8]) -> F64:
    """Return factor (r, n) · signs (n, SIDE), widened a block at a time."""
    total = np.zeros((len(factor), signs.shape[1]))
    for start in range(0, factor.shape[1], _BLOCK):
        some = slice(start, start + _BLOCK)
        total += factor[:, some].astype(np.float64) @ signs[some].astype(np.float64)
    return total
