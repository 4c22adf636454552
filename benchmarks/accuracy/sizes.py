"""How large an update is beside the weight that it is added to: ‖ΔW‖/‖W‖ and σ₁(ΔW)/σ₁(W).

`python -m benchmarks.accuracy.sizes` measures the weights of the zoo's bases once, into
`sizes.json`; with those, and the norms that the evidence has, both ratios are known for every
specimen without its factors. Of DoRA it is the factors' size, not the true update's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from adapterscan.onbase.matrix import Matrix
from adapterscan.onbase.spectrum import leading
from adapterscan.sources.base_weights import weights_of
from benchmarks.accuracy import features
from benchmarks.zoo.bases import home_of

SIZES = Path(__file__).with_name("sizes.json")
RATIOS = ("relative", "top_ratio")
DIGITS = 6
_ADAPTED = "self_attn.", "mlp."


def main(
    bases: Annotated[
        list[str] | None, typer.Argument(help="Which, by their ids in the zoo.")
    ] = None,
) -> None:
    """Measure ‖W‖ and σ₁(W) of every matrix that an adapter of the zoo can change."""
    found = {name: dict(weights) for name, weights in known().items()}
    for name in bases or ["smollm2-135m", "smollm2-135m-aligned", "gemma3-270m"]:
        found[name] = measured(home_of(name), name)
        print(f"{name}: {len(found[name])} weights", flush=True)
    SIZES.write_text(json.dumps(found, indent=0, sort_keys=True) + "\n", "utf-8")


def measured(home: Path, name: str) -> dict[str, list[float]]:
    """Return [‖W‖, σ₁(W)] of every matrix in the layers of the base in `home`, by module."""
    base = weights_of(home, name)
    found = {}
    for tensor in base.tensors.values():
        module = tensor.name.removesuffix(".weight")
        if len(tensor.shape) == 2 and any(part in module for part in _ADAPTED):
            top = leading(Matrix(base, tensor))
            found[module] = [_rounded(top.frobenius), _rounded(float(top.sigma[0]))]
    return found


@cache
def known() -> Mapping[str, Mapping[str, tuple[float, float]]]:
    """Return ‖W‖ and σ₁(W) by base and module, as measured last."""
    if not SIZES.exists():
        return {}
    found: dict[str, dict[str, tuple[float, float]]] = json.loads(SIZES.read_text("utf-8"))
    return found


def beside(base: str, modules: features.Modules) -> features.Modules:
    """Return the two ratios of every module whose weight is known; {} for another base."""
    weights = known().get(base, {})
    found = {}
    for module, values in modules.items():
        sigma, norm = features.value(values, "sigma_1"), values.get("frobenius")
        if module in weights and sigma is not None and norm is not None:
            whole, top = weights[module]
            found[module] = {"relative": norm / whole, "top_ratio": sigma / top}
    return found


def over_all(base: str, modules: features.Modules) -> float:
    """Return √(Σ‖ΔW‖²/Σ‖W‖²) over the modules whose weight is known; NaN without any."""
    weights = known().get(base, {})
    both = [
        (norm**2, weights[module][0] ** 2)
        for module, values in modules.items()
        if module in weights and (norm := values.get("frobenius")) is not None
    ]
    changed, whole = sum(pair[0] for pair in both), sum(pair[1] for pair in both)
    return float((changed / whole) ** 0.5) if both else float("nan")


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


if __name__ == "__main__":
    typer.run(main)
