"""ΔW of circulant blocks: block (i, j) is s times the circulant matrix of a kernel w[i, j] (b,).

Row t of a block is its kernel turned by t places: entry (t, u) is w[(u − t) mod b]. The discrete
Fourier transform diagonalises all blocks at once, so that the singular values of ΔW are those of
the b matrices ŵ[:, :, f] (m, n). Entries repeat b times each: norms and moments are the kernels'.
Source: Chen et al. 2024, "Parameter-efficient fine-tuning via circular convolution" (C3A), section
3; Davis 1979, "Circulant matrices".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adapterscan.lowrank import (
    F64,
    RELATIVE_FLOOR,
    Array,
    DeltaSummary,
    LowRank,
    summarised,
    undefined,
)
from adapterscan.updates.update import RANK_LIMIT


@dataclass(frozen=True, slots=True)
class BlockCirculant:
    """`kernel` (m, n, b): ΔW is (m·b, n·b)."""

    kernel: Array
    scaling: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """Return (d_out, d_in)."""
        m, n, b = self.kernel.shape
        return m * b, n * b

    def summary(self, exact_to: int = 16) -> DeltaSummary:
        """Return all statistics, in O(b·m·n·(log b + min(m, n)))."""
        wide = self.kernel.astype(np.float64)
        nonfinite = int(wide.size - np.count_nonzero(np.isfinite(wide)))
        largest = 0.0 if nonfinite else float(np.abs(wide).max(initial=0.0))
        rank = min(self.shape)
        if not np.isfinite(self.scaling):
            nonfinite = max(1, nonfinite)
        if nonfinite or not largest or not self.scaling:
            return undefined(self.shape, rank, nonfinite)
        wide /= largest
        found = self._spectrum(wide)
        sigma = np.sort(found)[::-1]
        counted = sigma[sigma > RELATIVE_FLOOR * sigma[0]] / sigma[0]
        squares = np.square(wide)
        total, size = float(squares.sum()), self.kernel.shape[2]
        return summarised(
            self.shape, rank, abs(self.scaling) * largest * sigma[:RANK_LIMIT], counted,
            kurtosis=float(np.square(squares).mean() / squares.mean() ** 2), kurtosis_energy=1.0,
            row_peak=float(squares.sum(axis=(1, 2)).max()) / (size * total),
            column_peak=float(squares.sum(axis=(0, 2)).max()) / (size * total),
        )  # fmt: skip

    def _spectrum(self, wide: F64) -> F64:
        """Return all singular values: of real kernels, frequencies f and b − f have the same."""
        size = wide.shape[2]
        turned = np.fft.rfft(wide, axis=2).transpose(2, 0, 1)
        found = np.linalg.svd(turned, compute_uv=False)
        once = [0, size // 2] if size % 2 == 0 else [0]
        twice = np.setdiff1d(np.arange(len(found)), once)
        return np.concatenate([found.ravel(), found[twice].ravel()])

    def low_rank(self) -> LowRank | None:
        """Return it as a matrix and an identity where its shorter side is small, else None."""
        if min(self.shape) > RANK_LIMIT:
            return None
        from adapterscan.updates.kronecker import matrix

        return matrix(self.dense())

    def rows(self, start: int, stop: int) -> F64:
        """Return the rows [start, stop) of ΔW."""
        m, n, b = self.kernel.shape
        some = np.arange(start, min(stop, m * b))
        turn = (np.arange(b)[None, :] - some[:, None] % b) % b  # (rows, b)
        kernels = self.kernel[some // b].astype(np.float64)  # (rows, n, b)
        found: F64 = np.take_along_axis(kernels, turn[:, None, :], axis=2)
        return self.scaling * found.reshape(len(some), n * b)

    def dense(self) -> F64:
        """Return ΔW in float64. For tests and small matrices only."""
        return self.rows(0, self.shape[0])
