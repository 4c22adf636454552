"""What a few counts can bear: an interval for a share, and a test for pairs."""

from __future__ import annotations

import math

_Z = 1.959964  # of the normal distribution, for 95 %


def share(hits: int, n: int) -> dict[str, float]:
    """Return a share as evidence has it: `hits`, `n`, and its Wilson interval `low` to `high`."""
    low, high = wilson(hits, n)
    return {"hits": hits, "n": n, "low": low, "high": high}


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share. Source: Wilson 1927."""
    mean, z2 = hits / n, _Z * _Z
    middle = (mean + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(mean * (1 - mean) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def sign_test(more: int, fewer: int) -> float:
    """Return the one-sided exact p-value of `more` against `fewer` under fair coins, 0 to 1."""
    n = more + fewer
    return float(sum(math.comb(n, k) for k in range(more, n + 1)) / 2**n)
