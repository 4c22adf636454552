"""Say how far a full tensor of an adapter lies from the base's own weight of that name.

A key that replaces a base weight by the same values is harmless; of one that moves it, it is told
by how much. Source: docs/threats.md on how such keys reach the base.
Limits: names in files and in a running model differ for some families, so that "absent" does not
mean that a loader passes the key over. Small moves of a norm or a head can do much.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from adapterscan.errors import Unsupported
from adapterscan.formats.accounting import Accounted, Role
from adapterscan.model import Evidence, Scalar, Subject
from adapterscan.onbase.base import BaseTensor, BaseWeights, Names
from adapterscan.reading import Contents, WeighedAdapter
from adapterscan.text import printable
from adapterscan.weighing.factors import Factors

ROLES = (Role.OVERWRITE, Role.EMBEDDING, Role.DECLARED)
WHOLE = 4  # times the base's elements that are compared: views can claim any number
_BLOCK = 1 << 22  # elements at a time


@dataclass(frozen=True, slots=True)
class Comparison:
    """`outcome`: "identical", "moved", "another shape" or "absent".

    `moved` is ‖new − old‖ / ‖old‖ where the shapes agree (of ‖new‖ for an old one of zero).
    """

    outcome: str
    moved: float | None = None
    elements: int = 0  # that differ

    def __str__(self) -> str:
        if self.outcome != "moved" or self.moved is None:
            return self.outcome
        return f"moved by {self.moved:.3g} of its norm"


def compared(
    contents: Contents, weighed: WeighedAdapter
) -> Iterator[tuple[Accounted, BaseTensor | None, Comparison]]:
    """Yield every full tensor of an adapter with the base's own and how they differ.

    Nothing where there is none, or no base. Raises SourceError or FileProblem, at the end for a
    tensor that holds no plain numbers.
    """
    base = contents.base
    items = [item for item in weighed.adapter.accounted if item.role in ROLES]
    if base is None or not items:
        return
    names, unread = Names(base), ""
    room = WHOLE * sum(tensor.numel for tensor in base.tensors.values())
    with Factors(contents.file(weighed.file), contents.sha256(weighed.file)) as factors:
        for item in items:
            contents.tell(f"comparing {printable(item.path, 60)} with the base")
            tensor = names.tensor(item.path)
            room -= item.tensor.numel if tensor is not None else 0
            if room < 0:
                raise Unsupported(
                    weighed.file, "replaces more than the whole base several times: not all of its "
                    "full tensors were compared", hint="treat it as hostile",
                )  # fmt: skip
            try:
                yield item, tensor, compare(base, tensor, item, factors)
            except ValueError as error:
                unread = unread or f"{printable(item.path, 80)} was not compared ({error})"
    if unread:
        raise Unsupported(weighed.file, unread, hint="ask its author for plain tensors")


def compare(
    base: BaseWeights, tensor: BaseTensor | None, item: Accounted, factors: Factors
) -> Comparison:
    """Return how an adapter's tensor differs from the base's, some rows at a time.

    Raises ValueError for one that holds no plain numbers.
    """
    own = item.tensor
    if tensor is None:
        return Comparison("absent")
    if tensor.shape != own.shape:
        return Comparison("another shape")
    rows = own.shape[0] if own.shape else 1
    step = max(1, _BLOCK // max(1, own.numel // max(1, rows)))
    old_square = new_square = difference = 0.0
    elements = 0
    for start in range(0, rows, step):
        stop = min(rows, start + step)
        new = factors.rows(own, start, stop).astype(np.float64).ravel()
        old = base.rows(tensor.name, start, stop).astype(np.float64).ravel()
        move = new - old
        elements += int(np.count_nonzero(move))  # a NaN differs from all
        difference += float(move @ move)
        old_square += float(old @ old)
        new_square += float(new @ new)
    if not elements:
        return Comparison("identical", 0.0)
    size = old_square or new_square
    return Comparison("moved", (difference / size) ** 0.5 if size else 0.0, elements)


def moved(file: str, item: Accounted, tensor: BaseTensor | None, found: Comparison) -> Evidence:
    """Return `overwrite.moved`."""
    details: Mapping[str, Scalar] = {
        "outcome": found.outcome,
        "role": item.role.value,
        "elements": found.elements,
        "shape": "×".join(map(str, item.tensor.shape)) or "scalar",
        "base_shape": "×".join(map(str, tensor.shape)) if tensor else None,
        "base_tensor": printable(tensor.name) if tensor else None,
        "path": printable(item.path),
    }
    subject = Subject("tensor", file, item.tensor.name)
    return Evidence("overwrite.moved", subject, found.moved, "‖new − old‖/‖old‖", details)
