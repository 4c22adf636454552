"""A base model in little: norms and leading singular triplets of its weights, in one file.

It is a safetensors file whose size is known before anything is measured; `profile_build` makes it.
Directions are kept in float16: a cosine is off by 1e-3 at the most.
Limits: what a profile has of W it has of its `count` leading directions; what takes all of W (what
rounding does, DoRA, which directions are intruders) it cannot tell.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapterscan.errors import FileProblem, Malformed, Unsupported
from adapterscan.formats.reader import SourceFile
from adapterscan.formats.safetensors import HEADER_LIMIT, read_safetensors
from adapterscan.formats.tensors import as_array
from adapterscan.model import Skipped
from adapterscan.onbase.base import BaseTensor, BaseWeights
from adapterscan.onbase.directions import WRITES, Asked, Directions, side_of
from adapterscan.onbase.spectrum import KEPT, PASSES, SEED, Leading
from adapterscan.text import printable

VERSION = "1"
SUFFIX = ".profile"
_MARK = "adapterscan-base-profile"
_SIZES = {"U8": 1, "F16": 2, "F32": 4, "F64": 8}
_LARGEST = 1 << 40  # of one axis; a vocabulary has 262,144 entries
_PARTS = ("sigma", "left", "right")
VECTORS = "directions"


@dataclass(frozen=True, slots=True)
class About:
    """What a profile is of. `identity` names the very bytes: a commit, or what files are there.

    `documents`: digests of tokenizer and template files, by name. `asked`: what its directions come
    from, where it was run.
    """

    base: str
    identity: str
    tied: bool
    count: int
    tensors: tuple[BaseTensor, ...]
    documents: Mapping[str, str]
    asked: Asked | None = None

    @property
    def matrices(self) -> Iterable[tuple[int, BaseTensor]]:
        """Yield the place and the tensor of what has triplets."""
        return ((at, tensor) for at, tensor in enumerate(self.tensors) if has_triplets(tensor))

    def metadata(self) -> dict[str, str]:
        """Return what is written into the header."""
        about = {
            "base": self.base,
            "identity": self.identity,
            "tied": self.tied,
            "count": self.count,
            "passes": PASSES,
            "seed": SEED,
            "documents": dict(sorted(self.documents.items())),
            "tensors": [(tensor.name, tensor.dtype, tensor.shape) for tensor in self.tensors],
            **({"asked": asdict(self.asked)} if self.asked else {}),
        }
        return {_MARK: VERSION, "about": json.dumps(about, ensure_ascii=False)}


def has_triplets(tensor: BaseTensor) -> bool:
    """Return whether a tensor is a matrix, and not an empty one."""
    return len(tensor.shape) == 2 and tensor.numel > 0


def side_in(what: About, tensor: BaseTensor) -> str:
    """Return on which side of the residual stream a tensor stands, "" where nobody asked."""
    if what.asked is None or not has_triplets(tensor):
        return ""
    rows, columns = tensor.shape
    return side_of(tensor.name, rows, columns, what.asked.hidden)


def about(
    base: BaseWeights,
    identity: str,
    documents: Mapping[str, str],
    count: int = KEPT,
    asked: Asked | None = None,
) -> About:
    """Return what a profile of `base` will say that it is of."""
    tensors = tuple(base.tensors[name] for name in sorted(base.tensors))
    return About(base.name, identity, base.tied, count, tensors, documents, asked)


Layout = dict[str, tuple[str, tuple[int, ...], int]]  # dtype, shape, where it starts


def layout_of(what: About) -> Layout:
    """Return where everything lies behind the header, in the order of the file; `done` is last."""
    found: Layout = {}
    at = 0

    def lay(name: str, dtype: str, *shape: int) -> None:
        nonlocal at
        found[name] = dtype, shape, at
        at += _SIZES[dtype] * math.prod(shape)

    for tensor in what.tensors:
        lay(f"{tensor.name}/frobenius", "F64", 1)
    for _, tensor in what.matrices:
        rows, columns = tensor.shape
        kept = min(what.count, rows, columns)
        lay(f"{tensor.name}/sigma", "F32", kept)
        lay(f"{tensor.name}/left", "F16", rows, kept)
        lay(f"{tensor.name}/right", "F16", columns, kept)
    if asked := what.asked:
        layers = len(asked.layers)
        lay(VECTORS, "F16", 1 + asked.controls, layers, asked.hidden)
        for _, tensor in what.matrices:
            if side := side_in(what, tensor):
                lay(f"{tensor.name}/along", "F16", layers, tensor.shape[side == WRITES])
    lay("done", "U8", len(what.tensors))
    return found


def end_of(layout: Layout) -> int:
    """Return how many bytes lie behind the header."""
    dtype, shape, start = layout["done"]
    return start + _SIZES[dtype] * shape[0]


def header_of(what: About, layout: Layout) -> bytes:
    """Return the header of a safetensors file. Raises Unsupported for one that is too long."""
    entries: dict[str, object] = {"__metadata__": what.metadata()}
    for name, (dtype, shape, start) in layout.items():
        end = start + _SIZES[dtype] * math.prod(shape)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    raw = json.dumps(entries, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    if len(raw) > HEADER_LIMIT:
        raise Unsupported(
            "profile", f"of {len(what.tensors):,} tensors would have too long a header",
            hint="scan with the base itself",
        )  # fmt: skip
    return struct.pack("<Q", len(raw)) + raw


class Profile:
    """A base by its profile: what is measured from one, as `BaseWeights`.

    `rest` opens the base itself, for the rows that are still wanted.
    Raises FileProblem for a file that is no profile.
    """

    def __init__(self, path: Path, rest: Callable[[], BaseWeights] | None = None) -> None:
        self._path, self._open = path, rest
        self._rest: BaseWeights | None = None
        with SourceFile(path.name, path) as source:
            self.about = _about(source)
            weights = read_safetensors(source)
        self._places = {tensor.name: tensor for tensor in weights.tensors}
        self.tensors: Mapping[str, BaseTensor] = {t.name: t for t in self.about.tensors}
        wanted = {name: laid[:2] for name, laid in layout_of(self.about).items()}
        there = {name: (tensor.dtype, tensor.shape) for name, tensor in self._places.items()}
        if weights.problem is not None or wanted != there:
            raise _bad(path.name, "is no whole profile of a base: its header says otherwise")

    @property
    def name(self) -> str:
        """Return what reports call the base."""
        return self.about.base

    @property
    def tied(self) -> bool:
        """Return whether its embeddings are one tensor."""
        return self.about.tied

    def rows(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Return rows of the base itself. Raises Unsupported where only its profile is here."""
        if self._rest is None:
            if self._open is None:
                raise Unsupported(
                    self._path.name, "is a profile, which holds no weights",
                    hint="give the base itself: a folder, a .gguf file or org/name@commit",
                )  # fmt: skip
            self._rest = self._open()
        return self._rest.rows(name, start, stop)

    def leading(self, name: str) -> Leading | None:
        """Return the triplets of a matrix; None for what is none, or holds no plain numbers."""
        if not has_triplets(self.tensors[name]):
            return None
        size = float(self._values(f"{name}/frobenius")[0])
        if not np.isfinite(size):
            return None
        sigma, left, right = (self._values(f"{name}/{part}") for part in _PARTS)
        return Leading(
            size, sigma.astype(np.float64), left.astype(np.float32), right.astype(np.float32)
        )

    def directions(self) -> Directions | None:
        """Return the directions that the base was asked for; None where nobody asked."""
        if self.about.asked is None:
            return None
        found = self._values(VECTORS).astype(np.float32)
        return Directions(self.about.asked, found, self._along, self._total)

    def _along(self, name: str) -> npt.NDArray[np.float32] | None:
        side = side_in(self.about, self.tensors[name])
        return self._values(f"{name}/along").astype(np.float32) if side else None

    def _total(self, side: str) -> npt.NDArray[np.float64]:
        asked = self.about.asked
        total = np.zeros(len(asked.layers) if asked else 0)
        for tensor in self.about.tensors:
            if side_in(self.about, tensor) == side:
                values = self._values(f"{tensor.name}/along").astype(np.float64)
                total += np.sum(values**2, axis=1)
        return total

    def notes(self) -> Iterable[Skipped]:
        """Say what a profile cannot tell."""
        yield Skipped(
            "what takes the base's whole weights", f"compared was with a profile of "
            f"{printable(self.name, 120)}, the {self.about.count} leading directions of each "
            "weight: what rounding leaves of an update, and which directions of the merged "
            "weights are intruders, it cannot tell", failed=False,
            hint="--whole-base reads the weights" if self._open else "give the base itself",
        )  # fmt: skip
        if self._rest is not None:
            yield from self._rest.notes()

    def _values(self, name: str) -> npt.NDArray[Any]:
        place = self._places[name]
        with SourceFile(self._path.name, self._path) as source:
            return as_array(place, bytes(source.glance(place.start, place.nbytes)))


def _about(source: SourceFile) -> About:
    """Return what a profile's header says. Raises Malformed for any other file."""
    try:
        (length,) = struct.unpack("<Q", source.read(0, 8))
        metadata = json.loads(source.read(8, min(length, HEADER_LIMIT)))["__metadata__"]
        if metadata[_MARK] != VERSION:
            raise _bad(source.path, "was written by another version of adapterscan")
        found = json.loads(metadata["about"])
        tensors = tuple(
            BaseTensor(str(name), str(dtype), tuple(map(_size, shape)))
            for name, dtype, shape in found["tensors"]
        )
        return About(
            str(found["base"]), str(found["identity"]), bool(found["tied"]), _size(found["count"]),
            tensors, {str(key): str(value) for key, value in found["documents"].items()},
            _asked(found["asked"]) if "asked" in found else None,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, struct.error) as error:
        raise _bad(source.path, "is no profile of a base") from error


def _size(value: object) -> int:
    """Return a size that a tensor can have. Raises ValueError."""
    if type(value) is not int or not 0 <= value <= _LARGEST:
        raise ValueError(value)
    return value


def _asked(found: Mapping[str, Any]) -> Asked:
    return Asked(
        tuple(_size(layer) for layer in found["layers"]), _size(found["depth"]),
        _size(found["controls"]), _size(found["hidden"]), _size(found["declined"]),
        str(found["digest"]),
    )  # fmt: skip


def _bad(path: str, why: str) -> FileProblem:
    return Malformed(
        path, why, defect="profile", hint="make one with: adapterscan base build BASE -o FILE"
    )
