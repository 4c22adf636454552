"""What every ΔW can be asked, whatever it is made of."""

from __future__ import annotations

from typing import Protocol

from adapterscan.lowrank import F64, DeltaSummary, LowRank


class Update(Protocol):
    """One ΔW (d_out, d_in) that is known without its weight W.

    Low-rank ones (`LowRank`) have factors; others have a structure of which their statistics follow
    (`Kronecker`, `BlockCirculant`, `Scattered`).
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Return (d_out, d_in)."""
        ...

    def summary(self, exact_to: int = 16) -> DeltaSummary:
        """Return its statistics; `exact_to` as of `LowRank.summary`."""
        ...

    def low_rank(self) -> LowRank | None:
        """Return it as factors, None where their rank would be over RANK_LIMIT."""
        ...

    def rows(self, start: int, stop: int) -> F64:
        """Return the rows [start, stop) of ΔW (n, d_in) in float64."""
        ...


#: Columns of factors that are made of something else: the r×r work is cubic.
RANK_LIMIT = 1024
