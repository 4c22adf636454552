"""Several adapters side by side: one module of all of them at a time, from the scanned bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import PurePath

from adapterscan.errors import AdapterscanError
from adapterscan.formats.deltas import UNSIZED, Delta
from adapterscan.formats.peft import Adapter
from adapterscan.lowrank import LowRank
from adapterscan.model import Artifact, File, SourceKind
from adapterscan.updates.update import RANK_LIMIT
from adapterscan.weighing.factors import Factors


@dataclass(frozen=True, slots=True)
class Part:
    """One adapter among several, and the digest of the weight file that was scanned."""

    name: str  # what reports call it
    artifact: Artifact
    adapter: Adapter
    sha256: str

    @property
    def file(self) -> File:
        """Return the weight file."""
        path = self.adapter.weights.path
        return next(file for file in self.artifact.files if file.path == path)

    @property
    def deltas(self) -> Mapping[str, Delta]:
        """Return the ΔW that a loader uses, by name."""
        unused = set(self.adapter.untargeted)
        return {d.name: d for d in self.adapter.deltas if d.module not in unused}


@dataclass(frozen=True, slots=True)
class Module:
    """One module and its ΔW in those parts that have one, by the part's number."""

    name: str
    deltas: Mapping[int, Delta]

    @property
    def obstacle(self) -> str:
        """Return why its updates cannot be put together, or "". Nothing is read for that."""
        if any(delta.kind in UNSIZED for delta in self.deltas.values()):
            return "has a sparse update, of which only the base tells the size"
        shapes = dict.fromkeys(delta.shape for delta in self.deltas.values())
        if len(shapes) > 1:
            told = " and ".join(f"{d_out} × {d_in}" for d_out, d_in in shapes)
            return f"has updates of different shapes ({told}): these adapters are for other bases"
        if not all(map(all, shapes)):
            return "has an update without a single value"
        rank = sum(delta.rank for delta in self.deltas.values())
        if rank > RANK_LIMIT:
            return f"has rank {rank:,} together, over the limit of {RANK_LIMIT:,}"
        return ""


def short_names(artifacts: Sequence[Artifact]) -> Sequence[str]:
    """Return what reports call the parts: the last of their folders' names where that is enough."""
    short = [
        artifact.ref.text
        if artifact.ref.kind is SourceKind.HUB
        else PurePath(artifact.ref.location).name or artifact.ref.text
        for artifact in artifacts
    ]
    counts = Counter(short)
    found = [
        name if counts[name] == 1 else artifact.ref.text
        for name, artifact in zip(short, artifacts, strict=True)
    ]
    return [
        f"{name} ({found[:i].count(name) + 1})" if found.count(name) > 1 else name
        for i, name in enumerate(found)
    ]


def modules(parts: Sequence[Part], *, shortened: bool = False) -> Iterator[Module]:
    """Yield every module that any part has, in the order of names.

    `shortened`: modules are the same if they agree from their list of layers on
    (`model.layers.0.self_attn.q_proj` and `language_model.layers.0.self_attn.q_proj`).
    """
    named = [_shortened(part.deltas) if shortened else part.deltas for part in parts]
    for name in sorted({name for deltas in named for name in deltas}):
        yield Module(name, {i: found[name] for i, found in enumerate(named) if name in found})


def _shortened(deltas: Mapping[str, Delta]) -> Mapping[str, Delta]:
    """Return the deltas by their names from the list of layers on; whole where that is not one."""
    short = {name: from_layers(name) for name in deltas}
    counts = Counter(short.values())
    return {short[n] if counts[short[n]] == 1 else n: delta for n, delta in deltas.items()}


def from_layers(name: str) -> str:
    """Return a module's name from its list of layers on: `layers.0.self_attn.q_proj`."""
    names = name.split(".")
    at = next((i for i, part in enumerate(names) if i and part.isdecimal()), 1)
    return ".".join(names[at - 1 :])


@contextmanager
def opened(parts: Sequence[Part]) -> Iterator[Sequence[Factors]]:
    """Open the weight files of all parts. Raises ChangedWhileReading for other than these bytes."""
    with ExitStack() as stack:
        yield [stack.enter_context(Factors(part.file, part.sha256)) for part in parts]


def factors_of(module: Module, sources: Sequence[Factors]) -> Mapping[int, LowRank]:
    """Return the module's ΔW as factors, by the part's number.

    Raises ValueError, with a reason to put behind the module's name, for what cannot be read.
    """
    if module.obstacle:
        raise ValueError(module.obstacle)
    try:
        return {i: sources[i].of(delta) for i, delta in module.deltas.items()}
    except AdapterscanError as error:
        raise ValueError(error.reason) from error
    except ValueError as error:  # what a cut file leaves does not fill its shape
        raise ValueError("has factors that are not there in their whole length") from error
