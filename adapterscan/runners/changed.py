"""The modules that an adapter changes: their factors, and what they are given when the model runs.

Limits: DoRA's magnitudes and biases are left out, and so are modules with other factors than
`lora_A` and `lora_B`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

LARGEST_RANK = 1024  # of what is factored
DIRECTIONS = 4  # of each module, those with the largest singular values
FAINT = 1e-3  # of the largest singular value: from there on it is padding
_MAD = 0.6744897501960817  # median absolute deviation of a normal distribution

Factors = tuple[Tensor, Tensor]  # A, (rank, in), and scaled B, (out, rank), float32


def factors(module: Any) -> Factors | None:
    """Return the factors of a module with low-rank matrices of finite numbers."""
    for name in getattr(module, "lora_A", None) or ():
        down, up = module.lora_A[name].weight.detach(), module.lora_B[name].weight.detach()
        if down.dim() == up.dim() == 2 and len(down) <= LARGEST_RANK:
            down, up = down.float(), up.float() * module.scaling[name]
            if bool(torch.isfinite(down).all()) and bool(torch.isfinite(up).all()):
                return down, up
    return None


def pristine(module: Any) -> Any:
    """Return a module as it is in the base, below what peft wrapped around it."""
    while (inner := getattr(module, "original_module", getattr(module, "base_layer", None))) and (
        inner is not module
    ):
        module = inner
    return module


def size(down: Tensor, up: Tensor) -> float:
    """Return ‖up · down‖, 0 where it is no number."""
    down, up = down.double(), up.double()
    norm = ((down @ down.T) * (up.T @ up)).sum().clamp(min=0).sqrt().item()
    return norm if norm < float("inf") else 0.0


def directions(down: Tensor, up: Tensor) -> Tensor:
    """Return the first left singular vectors of up · down, (out, at most DIRECTIONS).

    Those that it writes nothing along are left out.
    """
    left, one = torch.linalg.qr(up / up.abs().amax().clamp(min=1e-30))
    _, two = torch.linalg.qr((down / down.abs().amax().clamp(min=1e-30)).T)
    inner, sizes, _ = torch.linalg.svd(one @ two.T)
    kept = int((sizes > FAINT * sizes[0]).sum()) if sizes[0] > 0 else 0
    return (left @ inner)[:, : min(kept, DIRECTIONS)]


def all_factors(model: Any) -> dict[str, Factors]:
    """Return the factors of every module of the model that has them, by name."""
    modules = model.get_base_model().named_modules()
    return {name: found for name, module in modules if (found := factors(module))}


def energy(found: Factors, inputs: Tensor) -> Tensor:
    """Return ‖ΔW x‖² of each row of inputs, (rows, in), (rows,)."""
    down, up = found
    return (inputs.float() @ down.T @ up.T).square().sum(1)


@contextmanager
def told(
    model: Any, names: Iterable[str], tell: Callable[[str, tuple[Any, ...]], None]
) -> Iterator[None]:
    """Tell what modules are given, name and arguments, whenever they are called."""
    modules = dict(model.get_base_model().named_modules())

    def hook(name: str) -> Callable[[Any, tuple[Any, ...]], None]:
        return lambda _, given: tell(name, given)

    hooks = [modules[name].register_forward_pre_hook(hook(name)) for name in names]
    try:
        yield
    finally:
        for found in hooks:
            found.remove()


def last(given: tuple[Any, ...], length: int) -> Tensor | None:
    """Return what a module is given at the last of `length` positions of each row, (rows, in)."""
    if not given or not isinstance(given[0], Tensor):
        return None
    match given[0].dim():
        case 2:  # some layers put all positions of all rows into one list
            return given[0][length - 1 :: length]
        case 3:
            return given[0][:, -1]
    return None


def robust(energies: Tensor, usual: Tensor | None = None) -> Tensor:
    """Return robust z of each column, (rows, modules): a few loud rows hide no other.

    `usual`: rows that median and spread are taken of, (others, modules); None: these rows.
    """
    usual = energies if usual is None else usual
    middle = usual.median(0).values
    spread = (usual - middle).abs().median(0).values / _MAD
    z = (energies - middle) / torch.where(spread > 0, spread, torch.inf)
    return torch.nan_to_num(z, posinf=0.0, neginf=0.0)
