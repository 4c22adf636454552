"""How two adapters are related: what every module says, and what that makes of the whole.

Two trained apart are almost orthogonal: on one base, with initialisations of their own, cosines of
0.0 to 0.1 over all modules were measured; one initialisation (one seed, so that PEFT draws the same
`lora_A`) leaves the spaces that they read in common; checkpoints of one run reach 0.9. A copy stays
parallel, module by module, whatever is done to its factors.
Limits: an author who retrains, or turns each ΔW by random directions as large as itself, is not
recognised. One initialisation is only seen while training has not moved `lora_A` far.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from adapterscan.text import plural
from adapterscan.together.algebra import Stack

PARALLEL = 0.01  # residual of a copy, at the most: bfloat16 leaves 0.002
CONSTANT = 0.01  # how far factors of modules differ from each other, relatively
COPIED = 0.5  # share of modules that makes an adapter a copy with changes
ONE_TRAINING = 0.5  # cosine: checkpoints 0.96, twins of one seed on mostly the same rows 0.35
ALIKE = 0.2  # cosine: trained apart on one base 0.10 at the most
ONE_START = 0.25  # excess of the shared inputs over chance: one seed 0.45 to 0.64, other seeds 0.03


@dataclass(frozen=True, slots=True)
class Likeness:
    """One module of two adapters: their norms and ⟨ΔW₁, ΔW₂⟩, and what is expected by chance.

    `width`: standard deviation of the cosine by chance. `inputs`: overlap of the spaces that are
    read, 0 to 1, with `chance` what random ones have; None where it was not measured.
    """

    module: str
    inner: float
    norms: tuple[float, float]
    width: float
    inputs: float | None = None
    outputs: float | None = None
    chance: float = 0.0

    @property
    def cosine(self) -> float:
        """Return the cosine, −1 to 1; 0 where one is zero."""
        size = self.norms[0] * self.norms[1]
        return max(-1.0, min(1.0, self.inner / size)) if size else 0.0

    @property
    def z(self) -> float:
        """Return the cosine in standard deviations of chance."""
        return self.cosine / self.width if self.width else 0.0

    @property
    def parallel(self) -> bool:
        """Return whether one is a multiple of the other, or both are zero."""
        if not any(self.norms):
            return True
        return math.sqrt(max(0.0, 1.0 - self.cosine**2)) <= PARALLEL

    @property
    def factor(self) -> float | None:
        """Return c of ΔW₂ ≈ c·ΔW₁, None where one is zero."""
        return self.inner / self.norms[0] / self.norms[0] if all(self.norms) else None


def likeness(module: str, stack: Stack) -> Likeness:
    """Measure the two updates of `stack`."""
    known = bool(stack.norm(0) and stack.norm(1))
    return Likeness(
        module,
        stack.inner(0, 1),
        (stack.norm(0), stack.norm(1)),
        stack.null_width(0, 1) or 0.0,
        stack.overlap(0, 1, "inputs"),
        stack.overlap(0, 1, "outputs"),
        stack.chance(0, 1, "inputs") if known else 0.0,
    )


@dataclass(frozen=True, slots=True)
class Relation:
    """What two adapters are to each other. `kind` is one of KINDS."""

    kind: str
    cosine: float  # over all common modules, −1 to 1
    factor: float | None  # c of ΔW₂ ≈ c·ΔW₁, where it is one
    common: int  # modules that both have
    parallel: int  # of them, that are multiples
    changed: tuple[str, ...]  # modules that are not as in a copy: changed, added, left out
    shared_inputs: float | None  # median overlap of the spaces that are read
    chance: float  # of random ones

    def __str__(self) -> str:
        match self.kind:
            case "changed copy":
                told = plural(len(self.changed), "module")
                return f"{_scaled(self.factor)}, {told} changed"
            case "scaled copy":
                return _scaled(self.factor)
            case _:
                return KINDS[self.kind]


KINDS = {
    "copy": "the same updates",
    "scaled copy": "the same updates, scaled",
    "changed copy": "a copy with modules changed",
    "modules rescaled": "the same directions, rescaled module by module",
    "one training": "one training, or one made from the other",
    "one initialisation": "the same initialisation, trained apart",
    "alike": "alike in part, no copy",
    "unrelated": "unrelated",
    "nothing in common": "no module in common",
}


def _scaled(factor: float | None) -> str:
    if factor is None or abs(factor - 1.0) <= CONSTANT:
        return KINDS["copy"]
    return f"the same updates, times {factor:.3g}"


def relate(found: Sequence[Likeness], alone: Iterable[str] = ()) -> Relation:
    """Return what all modules say together. `alone`: modules that only one of the adapters has."""
    single = tuple(alone)
    inner = sum(item.inner for item in found)
    sizes = [math.hypot(*(item.norms[i] for item in found)) for i in (0, 1)]
    cosine = max(-1.0, min(1.0, inner / (sizes[0] * sizes[1]))) if all(sizes) else 0.0
    parallel = [item for item in found if item.parallel]
    factors = [item.factor for item in parallel if item.factor is not None]
    factor = median(factors) if factors else None
    alike = {item.module for item in parallel if _constant(item.factor, factor)}
    changed = (*(item.module for item in found if item.module not in alike), *single)
    overlaps = [item.inputs for item in found if item.inputs is not None]
    shared = median(overlaps) if overlaps else None
    chance = median(item.chance for item in found) if found else 0.0
    kind = "unrelated"
    if not found:
        kind = "nothing in common"
    elif factor is not None and not changed:
        kind = "copy" if abs(factor - 1.0) <= CONSTANT else "scaled copy"
    elif factor is not None and len(alike) >= COPIED * (len(found) + len(single)):
        kind = "changed copy"
    elif factors and len(parallel) >= COPIED * (len(found) + len(single)):
        kind = "modules rescaled"
    elif cosine >= ONE_TRAINING:
        kind = "one training"
    elif shared is not None and shared - chance >= ONE_START * (1.0 - chance):
        kind = "one initialisation"
    elif cosine >= ALIKE:
        kind = "alike"
    if kind not in ("scaled copy", "changed copy", "copy"):
        changed, factor = (), None
    return Relation(kind, cosine, factor, len(found), len(parallel), changed, shared, chance)


def _constant(factor: float | None, common: float | None) -> bool:
    if factor is None or common is None:
        return factor is None  # zero in both
    return abs(factor - common) <= CONSTANT * abs(common)
