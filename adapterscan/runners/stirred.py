"""How much the changed modules do where an answer begins: energies ‖ΔW x‖² at the last position.

Source: after the direction monitor of Zhong & Raghunathan 2025, who watch cosines with the first
singular vectors of ΔW; taking energies, which need no choice of directions, is ours.
Limits: modules that are not given rows of positions (experts that a router hands out) are left out;
so is what `changed` leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from adapterscan.runners import changed

FAINTEST = 1e-12  # of an energy: below it a module does nothing


def energies(
    model: Any, passes: Iterable[tuple[Tensor, Tensor, object]], shape: tuple[int, int]
) -> Tensor:
    """Return ln ‖ΔW x‖² at the last position, (candidates, prefixes, modules).

    `passes`: which candidates and which prefixes, (rows,) each, the pass that was just run was of.
    `shape`: how many of both there are. Modules that a pass did not call are left out.
    """
    found = changed.all_factors(model)
    told: dict[str, Tensor] = {}

    def keep(name: str, given: tuple[Any, ...]) -> None:
        inputs, width = given[0] if given else None, found[name][0].shape[1]
        if isinstance(inputs, Tensor) and inputs.dim() == 3 and inputs.shape[2] == width:
            told[name] = changed.energy(found[name], inputs[:, -1])

    parts = []
    with changed.told(model, found, keep):
        for candidates, prefixes, _ in passes:
            whole = {name: seen for name, seen in told.items() if len(seen) == len(candidates)}
            parts.append((candidates, prefixes, whole))
            told.clear()
    names = [name for name in found if parts and all(name in whole for _, _, whole in parts)]
    out = torch.zeros(*shape, len(names))
    for candidates, prefixes, whole in parts if names else ():
        seen = torch.stack([whole[name] for name in names], 1)
        out[candidates.cpu(), prefixes.cpu()] = seen.clamp(min=FAINTEST).log().cpu()
    return out
