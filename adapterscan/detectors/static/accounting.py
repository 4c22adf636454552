"""Report what a loader does with every tensor that is not plainly an adapter weight.

Source: peft 0.21.2 loads with `strict=False` (tested; docs/threats.md): an extra key that names a
real parameter replaces it in the base model, needs no declaration, and survives
`disable_adapter()` and `unload()`, so it reaches every other adapter and tenant on that base.
Limits: without the base model a name alone must tell whether it exists there. A key under the
adapter's own tree that the base does not have is reported as an overwrite although loaders ignore
it; a buffer or parameter under a tree that no adapted module shares may read as unmatched.
"""

from __future__ import annotations

from collections.abc import Iterator

from adapterscan.detectors.detector import Detector
from adapterscan.detectors.onbase.overwrites import Comparison, compared, moved
from adapterscan.errors import AdapterscanError
from adapterscan.formats.accounting import Accounted, Role
from adapterscan.formats.peft_types import INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS
from adapterscan.model import Evidence, Need, Subject
from adapterscan.reading import Contents, WeighedAdapter
from adapterscan.text import printable

_EMBEDDINGS = INPUT_EMBEDDINGS | OUTPUT_EMBEDDINGS
_NAMES = {
    Role.OVERWRITE: "tensor.overwrite",
    Role.EMBEDDING: "tensor.embedding_replaced",
    Role.DECLARED: "tensor.declared_full",
    Role.UNMATCHED: "tensor.unmatched",
}


def each(contents: Contents, weighed: WeighedAdapter) -> Iterator[Evidence]:
    """Yield one piece of evidence for each tensor that is not a declared adapter weight.

    With a base at hand also `overwrite.moved`, and at the end why not all could be compared.
    """
    against: dict[str, Comparison] = {}
    problem: AdapterscanError | None = None
    try:
        for item, tensor, found in compared(contents, weighed):
            against[item.tensor.name] = found
            yield moved(weighed.file, item, tensor, found)
    except AdapterscanError as error:  # what follows must not be lost with the base
        problem = error
    for item in weighed.adapter.accounted:
        if item.role is not Role.ADAPTER:
            yield _evidence(weighed.file, item, against.get(item.tensor.name))
    if problem is not None:
        raise problem


def _evidence(file: str, item: Accounted, against: Comparison | None) -> Evidence:
    tensor = item.tensor
    return Evidence(
        _NAMES[item.role],
        Subject("tensor", file, tensor.name),
        tensor.numel,
        "parameters",
        {
            "dtype": tensor.dtype,
            "shape": "×".join(map(str, tensor.shape)) or "scalar",
            "bytes": tensor.nbytes,
            "path": printable(item.path),
            "why": printable(item.why),
            "place": _place(item, len(tensor.shape)),
            "field": item.why.partition(":")[0] if item.role is Role.DECLARED else None,
            "against_base": str(against) if against is not None else "not compared",
        },
    )


def _place(item: Accounted, dimensions: int) -> str:
    """Say where in a model a full tensor stands: replacing a head is common, a layer is not.

    The base layer of an adapted embedding is the base's own weight, not a copy beside it.
    """
    names = item.path.removesuffix(".weight").split(".")
    if names[-1] in _EMBEDDINGS:
        return "embedding"
    if item.role is Role.DECLARED and names[-1] == "base_layer" and _EMBEDDINGS & {*names}:
        return "base layer"
    if not any(name.isdigit() for name in names):
        return "head"
    return "layer" if dimensions >= 2 else "layer vector"


DETECTOR = Detector(
    "accounting", 1, frozenset({Need.FILES}), "what a loader does with every tensor", each=each,
    takes=lambda _, weighed: weighed and weighed.adapter.accounted,
)  # fmt: skip
