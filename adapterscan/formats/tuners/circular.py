"""C3A: ΔW of circulant blocks, one kernel each, over the width of the weight.

Source: Chen et al. 2024, "Parameter-efficient fine-tuning via circular convolution"; peft 0.21.2,
`tuners/c3a/layer.py`, `get_delta_weight` (divides by the size of the weight's last axis) and
`c3a/utils.py`, `get_circulant_fast`.
"""

from __future__ import annotations

from collections.abc import Sequence

from adapterscan.formats.deltas import Delta
from adapterscan.formats.tuners.tuner import Site, Tuner, Unfit, Values
from adapterscan.updates.circulant import BlockCirculant


def locate(site: Site) -> Delta:
    """Return the ΔW of a module."""
    (kernel,) = site.need("c3a_kernel")
    if len(kernel.shape) != 3:
        raise Unfit(f"has a kernel of shape {kernel.shape}")
    m, n, b = kernel.shape
    return site.delta("c3a", (kernel,), (m * b, n * b), min(m, n) * b, 1 / max(1, n * b))


def make(delta: Delta, arrays: Sequence[Values]) -> BlockCirculant:
    """Return the ΔW."""
    return BlockCirculant(arrays[0], delta.scaling)


def _extra(delta: Delta) -> int:
    """Return the bytes of the kernels in float64, their squares and their transform."""
    return 8 * 6 * delta.tensors[0].numel


def _work(delta: Delta) -> int:
    """Return the work on b matrices of (m, n)."""
    m, n, b = delta.tensors[0].shape
    return 4 * b * m * n * min(m, n)


TUNER = Tuner("c3a", frozenset({"c3a_kernel"}), locate, make, _extra, _work)
