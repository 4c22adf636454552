"""ΔW as the real part of an inverse Fourier transform of a few coefficients, a few rows at a time.

Only the rows of S that have coefficients are transformed; a row of ΔW then adds them up, each with
its wave. Places are drawn as torch's `randperm` draws them on a CPU: the first steps of Fisher and
Yates' shuffle with a Mersenne twister of 32 bits.
Source: Gao et al. 2024 (FourierFT), section 3; torch 2.13, `aten/src/ATen/native/
TensorFactories.cpp`, `randperm_cpu`; `make oracle` holds both against torch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from adapterscan.lowrank import F64, LowRank
from adapterscan.updates.update import RANK_LIMIT
from adapterscan.updates.weight import F32, Rows

I64 = npt.NDArray[np.int64]

_DRAWN = (1 << 32) // 20  # elements above which torch draws 64 bits for each
_WAVES = 1 << 25  # elements of the rows that are transformed


def harmonic(
    down: I64, across: I64, values: F64, shape: tuple[int, int], scaling: float
) -> LowRank | Rows:
    """Return `scaling`·Re(ifft2(S)) for S (d_out, d_in) with `values` (n,) at (down, across).

    As factors of two columns for each row of S where they are few, else row by row. Raises
    ValueError where more rows have coefficients than are transformed.
    """
    (d_out, d_in), (used, at) = shape, np.unique(down, return_inverse=True)
    if len(used) * d_in > _WAVES:
        raise ValueError(f"has coefficients in {len(used):,} rows of {d_in:,}, over the limit")
    lines = np.zeros((len(used), d_in), np.float32)
    lines[at, across] = values
    waves = np.fft.ifft(lines, axis=1)

    def turns(rows: I64) -> npt.NDArray[np.complex128]:
        found: npt.NDArray[np.complex128] = np.exp(2j * np.pi * np.outer(rows, used) / d_out)
        return scaling / d_out * found

    if 2 * len(used) <= RANK_LIMIT:
        turn = turns(np.arange(d_out))
        b = np.concatenate([turn.real, -turn.imag], axis=1)
        return LowRank(np.concatenate([waves.real, waves.imag]), b)

    def rows(start: int, block: F32) -> F32:
        turn = turns(np.arange(start, start + len(block))).astype(np.complex64)
        return (turn @ waves).real.astype(np.float32)

    return rows


def drawn(size: int, count: int, seed: int) -> I64:
    """Return the first `count` of `torch.randperm(size)` with a CPU generator of `seed`.

    Raises ValueError for more elements than torch draws by 32 bits.
    """
    if size >= _DRAWN:
        raise ValueError(f"draws its places from {size:,}, which is not followed")
    twister = np.random.RandomState(seed & 0xFFFFFFFF)  # NumPy keeps its stream for good
    raw = twister.randint(0, 1 << 32, count, dtype=np.uint64).astype(np.int64)
    moved: dict[int, int] = {}
    found = np.empty(count, np.int64)
    for at in range(count):
        other = at + int(raw[at]) % (size - at)
        found[at] = moved.get(other, other)
        moved[other] = moved.get(at, at)
    return found
