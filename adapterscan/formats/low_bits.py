"""Measure whether the low bits of weights are noise, as training leaves them, or carry something.

Methods: pairs and runs in steganalysis (Westfeld and Pfitzmann, Attacks on Steganographic Systems,
1999) carried over to floats. A payload that is written byte by byte into k low bits returns in step
with its bytes (letters have a zero in the same place), or repeats itself at short distances. Under
training none of that holds, whatever the precision: the tests are conditional on how often a bit is
set, so that numbers on a grid (values drawn at 24 bits, casts) pass. How common each value of a
byte is tells nothing: numbers that are drawn at 24 bits and scaled are uneven too.
Limits: an encrypted payload is noise like the bits it replaces; no test of bits can see it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

WINDOW = 4096  # elements that a test looks at together
LAGS = (1, 2, 4, 8, 16)
PLANES: Mapping[str, int] = {"F32": 2, "F16": 2, "BF16": 2}  # lowest bits that are tested
_TESTS = ("constant", "period", "echo")
#: Bits that a cast leaves zero, and the share of numbers that may have none of them set by chance.
_CAST = {"F32": (0xFFF, 0.01), "F16": (7, 0.3)}
_FULL = 0.2
_TOLD = 3.0  # −log₁₀ p from which a window is returned
#: A window is left out when it repeats itself: too many zeros, or neighbours that are equal.
_REPEATED = 0.05

U8 = npt.NDArray[np.uint8]
Words = npt.NDArray[np.unsignedinteger[Any]]
_F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pattern:
    """The strongest departure from noise in one window: −log₁₀ p of one test."""

    window: int
    test: str  # "period", "echo", "constant"
    plane: int  # bit, 0 the lowest
    strength: float


def streams(low: U8) -> Iterator[tuple[str, U8]]:
    """Yield (how, bytes) that the lowest byte of each element (n,), n a multiple of 8, may hold.

    1, 2, 4 or 8 low bits of each, the first element's first or last in a byte.
    """
    yield "8 low bits", low
    for bits in (4, 2, 1):
        part = low & np.uint8((1 << bits) - 1)
        groups = part.reshape(-1, 8 // bits)
        for order in ("first highest", "first lowest"):
            shifts = np.arange(0, 8, bits, dtype=np.uint8)
            shifts = shifts[::-1] if order == "first highest" else shifts
            packed = np.zeros(len(groups), np.uint8)
            for at, shift in enumerate(shifts):
                packed |= groups[:, at] << shift
            yield f"{bits} low bits, {order}", packed


def patterns(values: Words, dtype: str) -> tuple[list[Pattern], int]:
    """Test windows (m, WINDOW) of elements as whole numbers.

    Returns the strongest departure of each window that has one of p < 10⁻³, and how many tests were
    made of how many windows.
    """
    usable = np.flatnonzero((_repeated(values) <= _REPEATED) & ~_partly_cast(values, dtype))
    values = values[usable]
    if not len(values):
        return [], 0
    best, which = _constant(values)
    test = np.zeros(len(values), np.int64)
    tests = 1
    for plane in range(PLANES[dtype]):
        bits = ((values >> plane) & 1).astype(np.float32)
        for number, strength in ((1, _period(bits)), *((2, echo) for echo in _echoes(bits))):
            tests += 1
            better = strength > best
            best[better], which[better], test[better] = strength[better], plane, number
    found = [
        Pattern(int(usable[at]), _TESTS[test[at]], int(which[at]), float(best[at]))
        for at in np.flatnonzero(best > _TOLD).tolist()
    ]
    return found, tests * len(values)


def _repeated(values: Words) -> _F64:
    """Return the share of elements (m,) that equal the next one or are zero, sign apart."""
    top = 8 * values.itemsize - 1
    plain = values & values.dtype.type((1 << top) - 1)
    same = np.count_nonzero(plain[:, 1:] == plain[:, :-1], axis=1)
    zero = np.count_nonzero(plain == 0, axis=1)
    shares: _F64 = np.maximum(same, zero) / values.shape[1]
    return shares


def _partly_cast(values: Words, dtype: str) -> npt.NDArray[np.bool_]:
    """Return (m,) whether some numbers were cast from a shorter type.

    Rows of an embedding that were not trained stand among others that were: their zeros stand
    together, and that is no payload.
    """
    zeros, share = _CAST.get(dtype, (0, 1.0))
    cast = np.count_nonzero((values & zeros) == 0, axis=1)
    some: npt.NDArray[np.bool_] = cast > share * values.shape[1]
    return some


def _period(bits: npt.NDArray[np.float32]) -> _F64:
    """−log₁₀ p (m,) that a bit is set equally often at all eight places of a byte."""
    counts = bits.reshape(len(bits), -1, 8).sum(1, dtype=np.float64)
    share = counts.sum(1, keepdims=True) / bits.shape[1]
    expected = share * (bits.shape[1] / 8)
    spread = np.maximum(expected * (1 - share), 1e-9)
    statistic = ((counts - expected) ** 2 / spread).sum(1)
    flat = (share[:, 0] < 0.01) | (share[:, 0] > 0.99)  # a cast: nothing to test
    return np.where(flat, 0.0, _chi_square(statistic, 7))


def _echoes(bits: npt.NDArray[np.float32]) -> Iterator[_F64]:
    """−log₁₀ p (m,) that a bit has nothing to do with the one LAG elements before."""
    share = bits.mean(1, keepdims=True)
    flat = (share[:, 0] < 0.01) | (share[:, 0] > 0.99)
    centred = (bits - share) / np.sqrt(np.maximum(share * (1 - share), 1e-9))
    for lag in LAGS:
        total = np.einsum("ij,ij->i", centred[:, lag:], centred[:, :-lag]).astype(np.float64)
        z = np.abs(total) / math.sqrt(bits.shape[1] - lag)
        yield np.where(flat, 0.0, _normal(z))


def _constant(values: Words) -> tuple[_F64, npt.NDArray[np.int64]]:
    """Return (m,) whether a bit of the lowest byte never changes although a lower one does.

    Casts and grids leave the lowest bits constant, and no others. Letters leave the eighth.
    """
    changing = np.bitwise_or.reduce(values, axis=1) & ~np.bitwise_and.reduce(values, axis=1)
    changing = (changing & 0xFF).astype(np.int64)
    above = changing & -changing  # the lowest bit that changes
    gaps = ~(changing | (above - 1)) & 0xFF
    plane = np.where(changing, gaps, 0)
    share = np.count_nonzero(values & 1, axis=1) / values.shape[1]
    full = (share > _FULL) & (share < 1 - _FULL)  # not a cast with a few numbers that are none
    strength = np.where((plane > 0) & full, values.shape[1] * math.log10(2), 0.0)
    return strength, np.log2(np.maximum(plane & -plane, 1)).astype(np.int64)


def _normal(z: _F64) -> _F64:
    """Return −log₁₀ of the two-sided tail; by its asymptote where that underflows."""
    far = z * z / 2 / math.log(10) + np.log10(np.maximum(z, 1.0) * math.sqrt(math.pi / 2))
    near = np.flatnonzero(z < 37.0)
    far[near] = [-math.log10(math.erfc(value / math.sqrt(2))) for value in z[near].tolist()]
    return far


def _chi_square(statistic: _F64, freedom: int) -> _F64:
    """Return −log₁₀ of the upper tail, by the cube root (Wilson and Hilferty, 1931)."""
    spread = 2 / (9 * freedom)
    z = ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return np.where(z > 0, _normal(np.maximum(z, 0.0)), 0.0)
