"""Put adapters together into one: an adapter folder with nothing in it that their authors wrote but
numbers, and what the parts do to each other on the way.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapterscan.errors import LimitExceeded, Unsupported
from adapterscan.formats.safetensors_writer import SafetensorsWriter
from adapterscan.lowrank import LowRank
from adapterscan.model import Evidence, Skipped, Subject
from adapterscan.text import plural, printable, size_text
from adapterscan.together.algebra import stacked, weighted_sum
from adapterscan.together.combining import Method, combine
from adapterscan.together.interaction import Interactions
from adapterscan.together.side_by_side import Module, Part, factors_of, modules, opened

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
SUM_LIMIT = 4 << 30  # bytes of the file that is written
MODULE_LIMIT = 10_000  # names in its config
_KINDS = frozenset({"linear", "embedding"})
_PREFIX = "base_model.model."
_TOLD = 5  # modules that are told of those that could not be put together


@dataclass(frozen=True, slots=True)
class Composition:
    """What was written, and what was seen: facts, and what could not be put together."""

    evidence: tuple[Evidence, ...]
    skipped: tuple[Skipped, ...]


def compose(
    parts: Sequence[Part],
    weights: Sequence[float],
    method: Method,
    folder: Path,
    progress: Callable[[str], None] = lambda _: None,
) -> Composition:
    """Write what `method` makes of the parts into `folder`, as PEFT lays an adapter out.

    One module at a time is in memory. All modules have the largest rank that one needs; smaller
    ones are padded with zeros. Raises ChangedWhileReading for other bytes than were scanned,
    Unsupported where no module can be written, LimitExceeded where the file would be too large.
    """
    together = list(modules(parts))
    left = {m.name: why for m in together if (why := _obstacle(m, method))}
    planned = [module for module in together if module.name not in left]
    if not planned:
        first = next(iter(left.items()), ("", "no module has an update"))
        raise Unsupported(
            " + ".join(part.name for part in parts), f"cannot be put together: {': '.join(first)}",
            hint="adapters of one base model can be merged",
        )  # fmt: skip
    rank = max(method.rank_of(d.rank for d in module.deltas.values()) for module in planned)
    names = {module.name for module in planned}
    _require_room(planned, rank)
    seen, facts = Interactions([part.name for part in parts], weights), list[Evidence]()
    off = _Distance()
    with (
        np.errstate(all="ignore"),  # a scale of 1e308 overflows, and is told as no number
        opened(parts) as sources,
        SafetensorsWriter(folder / WEIGHTS, _shapes(planned, rank)) as out,
    ):
        for place, module in enumerate(together):
            progress(module.name)
            made: LowRank | None = None
            try:
                found = factors_of(module, sources)
                facts += seen.add(module.name, found)
                if module.name not in left:
                    own = [weights[i] for i in found]
                    made = combine(list(found.values()), own, method, place)
                    off.add(made, list(found.values()), own, method)
            except ValueError as problem:
                left.setdefault(module.name, str(problem))
            if module.name in names:  # what broke on the way stays zero, and is told
                _write(out, module, made or _nothing(module, rank), rank)
    (folder / CONFIG).write_text(json.dumps(_config(parts, planned, rank), indent=1) + "\n")
    facts += seen.evidence()
    facts += [_bases(parts), off.evidence(parts, method)]
    return Composition(tuple(facts), (*_left(left), *_untold(parts, method)))


def _obstacle(module: Module, method: Method) -> str:
    """Return why a module cannot be put together or written, or ""."""
    if module.obstacle:
        return module.obstacle
    kinds = {delta.kind for delta in module.deltas.values()}
    if len(kinds) > 1 or not kinds <= _KINDS:
        return f"is of kind {' and '.join(sorted(kinds))}, which is not put together yet"
    try:
        method.rank_of(delta.rank for delta in module.deltas.values())
    except ValueError as problem:
        return str(problem)
    return ""


def _require_room(planned: Sequence[Module], rank: int) -> None:
    if len(planned) > MODULE_LIMIT:
        raise LimitExceeded(
            CONFIG, f"the sum would have {len(planned):,} modules, over the limit of "
            f"{MODULE_LIMIT:,}", hint="compare them: adapterscan compare A B",
        )  # fmt: skip
    size = 4 * rank * sum(sum(_shape(module)) for module in planned)
    if size > SUM_LIMIT:
        raise LimitExceeded(
            WEIGHTS, f"the sum would take {size_text(size)}, over the limit of "
            f"{size_text(SUM_LIMIT)}", hint="--method svd keeps the largest rank",
        )  # fmt: skip


def _shape(module: Module) -> tuple[int, int]:
    delta = next(iter(module.deltas.values()))
    return delta.shape


def _names(module: Module) -> tuple[str, str]:
    """Return what PEFT calls the factors A and B of a module."""
    kind = next(iter(module.deltas.values())).kind
    middle, end = ("embedding_", "") if kind == "embedding" else ("", ".weight")
    stem = f"{_PREFIX}{module.name}.lora_{middle}"
    return f"{stem}A{end}", f"{stem}B{end}"


def _shapes(planned: Sequence[Module], rank: int) -> Mapping[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for module in planned:
        (d_out, d_in), (a, b) = _shape(module), _names(module)
        found |= {a: (rank, d_in), b: (d_out, rank)}
    return found


def _nothing(module: Module, rank: int) -> LowRank:
    d_out, d_in = _shape(module)
    return LowRank(np.zeros((rank, d_in)), np.zeros((d_out, rank)))


def _write(out: SafetensorsWriter, module: Module, made: LowRank, rank: int) -> None:
    missing, (a, b) = rank - len(made.a), _names(module)
    out.write(a, np.pad(made.a, ((0, missing), (0, 0))))
    out.write(b, np.pad(made.b, ((0, 0), (0, missing))))


def _config(parts: Sequence[Part], planned: Sequence[Module], rank: int) -> Mapping[str, object]:
    """Return the config: what the tensors are, and of the parts' configs what all agree on."""
    configs = [part.adapter.config for part in parts]
    agreed = {
        key: found.pop() if len(found) == 1 else None
        for key in ("base_model", "revision", "task_type")
        for found in [{getattr(config, key) for config in configs}]
    }
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": agreed["base_model"],
        "revision": agreed["revision"],
        "task_type": agreed["task_type"] or None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "target_modules": [module.name for module in planned],
        "fan_in_fan_out": any(config.fan_in_fan_out for config in configs),
    }


def _bases(parts: Sequence[Part]) -> Evidence:
    """Return `sum.bases`: what the parts call their base, in any case."""
    named = {base.casefold(): base for part in parts if (base := part.adapter.config.base_model)}
    subject = Subject("adapter", name=" + ".join(part.name for part in parts))
    told = " and ".join(printable(base, 80) for base in named.values())
    return Evidence("sum.bases", subject, told, details={"bases": len(named)})


def _left(left: Mapping[str, str]) -> Iterator[Skipped]:
    """Say which modules are not in the sum."""
    for name, reason in list(left.items())[:_TOLD]:
        yield Skipped(
            printable(name), reason, failed=True, detector="composing",
            hint="it is not part of the sum that was analysed",
        )  # fmt: skip
    if len(left) > _TOLD:
        yield Skipped(
            f"… {plural(len(left) - _TOLD, 'more module')}",  # … sorts behind all names
            "could not be put together",
            failed=True,
        )


def _untold(parts: Sequence[Part], method: Method) -> Iterator[Skipped]:
    """Say what the parts have beside their low-rank updates, and what a loader may do else."""
    bases = dict.fromkeys(str(part.adapter.config.base_model) for part in parts)
    if len(bases) > 1:
        told = " and ".join(printable(base, 80) for base in bases)
        yield Skipped(
            "base model", f"the parts name different ones: {told}", failed=False,
            hint="a sum means something only on one base",
        )  # fmt: skip
    for part in parts:
        config = part.adapter.config
        if part.adapter.problems:
            yield Skipped(
                printable(part.name), f"{plural(len(part.adapter.problems), 'module')} of it "
                "have factors but no update that can be read", failed=True,
                hint="they are no part of the sum; its own report names them",
            )  # fmt: skip
        beside = len(part.adapter.accounted) - 2 * len({d.module for d in part.adapter.deltas})
        if beside > 0 or config.dora:
            what = "DoRA's magnitudes" if config.dora else "what it has beside low-rank updates"
            yield Skipped(
                printable(part.name), f"{what} ({plural(max(beside, 1), 'tensor')}) is no part of "
                "the sum", failed=False, hint="it was analysed in the adapter's own report",
            )  # fmt: skip
    if method.name == "cat" and parts[0].adapter.config.rslora:
        yield Skipped(
            "how PEFT scales it", "PEFT 0.21.2 keeps use_rslora of the first adapter, and makes "
            "the sum √r times as large when it concatenates", failed=False,
            hint="this report is about the sum itself, as several active adapters give it",
        )  # fmt: skip


@dataclass(slots=True)
class _Distance:
    """How far what a method makes is from the sum of all ΔW, over all modules."""

    apart: float = 0.0
    whole: float = 0.0

    def add(
        self, made: LowRank, parts: Sequence[LowRank], weights: Sequence[float], method: Method
    ) -> None:
        """Take in one module."""
        if not method.exact:
            both = stacked([made, weighted_sum(parts, weights)])
            apart, whole = both.summed((1.0, -1.0)), both.norm(1)
            self.apart, self.whole = math.hypot(self.apart, apart), math.hypot(self.whole, whole)

    def evidence(self, parts: Sequence[Part], method: Method) -> Evidence:
        """Return `sum.method`."""
        off = self.apart / self.whole if self.whole else None
        return Evidence(
            "sum.method",
            Subject("adapter", name=" + ".join(part.name for part in parts)),
            0.0 if method.exact else off,
            "distance from the sum of all ΔW, relative to it",
            {"method": method.name, "density": method.density, "seed": method.seed},
        )
