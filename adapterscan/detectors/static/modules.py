"""Compare the adapted modules with what the config declares: factors, ranks, targets.

Also which layers are adapted, and which tokens' embeddings are replaced.

Limits: shapes are compared with the config, not with the base model.
"""

from __future__ import annotations

from collections.abc import Iterator

from adapterscan.detectors.detector import Detector
from adapterscan.formats.accounting import Role
from adapterscan.formats.deltas import FACTORED
from adapterscan.formats.targeting import declared_rank
from adapterscan.model import Evidence, Need, Subject
from adapterscan.reading import Contents, WeighedAdapter

_PROBLEMS = {"orphan": "module.orphan", "shape": "module.shape_conflict"}


def each(_: Contents, weighed: WeighedAdapter) -> Iterator[Evidence]:
    """Yield `module.*`, `adapter.layers` and `.trainable_tokens`."""
    yield from _structure(weighed)
    yield from _reach(weighed)


def _structure(weighed: WeighedAdapter) -> Iterator[Evidence]:
    adapter = weighed.adapter
    for problem in adapter.problems:
        if problem.defect == "unread":  # nothing is wrong with it; the coverage says what we lack
            continue
        name = _PROBLEMS.get(problem.defect, "module.shape_conflict")
        yield Evidence(name, Subject("module", weighed.file, problem.module), problem.reason)
    for module in adapter.untargeted:
        subject = Subject("module", weighed.file, module)
        yield Evidence("module.untargeted", subject, "not targeted")
    if not adapter.config.path or adapter.config.peft_type == "ADALORA":  # prunes ranks by itself
        return
    for delta in adapter.deltas:
        if delta.kind not in FACTORED:  # ΔW has another rank than the config's r
            continue
        declared = declared_rank(adapter.config, adapter.patterns, delta.module)
        if declared is not None and declared != delta.rank and delta.part == 0:
            yield Evidence(
                "module.rank_mismatch",
                Subject("module", weighed.file, delta.module),
                delta.rank,
                details={"declared": declared if abs(declared) < 1 << 53 else str(declared)[:20]},
            )


def _reach(weighed: WeighedAdapter) -> Iterator[Evidence]:
    """How much of the model is adapted: an edit of one layer is not what training leaves."""
    adapter = weighed.adapter
    layers = {delta.layer for delta in adapter.deltas if delta.layer is not None}
    if layers:
        yield Evidence(
            "adapter.layers",
            Subject("adapter", weighed.file),
            len(layers),
            "layers",
            {
                "first": min(layers),
                "last": max(layers),
                "families": len({delta.family for delta in adapter.deltas}),
            },
        )
    for item in adapter.accounted:
        if item.role is Role.ADAPTER and item.why == "trainable_tokens_delta":
            rows = item.tensor.shape[0] if item.tensor.shape else 0
            subject = Subject("tensor", weighed.file, item.tensor.name)
            yield Evidence("adapter.trainable_tokens", subject, rows, "tokens")


DETECTOR = Detector(
    "modules", 1, frozenset({Need.WEIGHTS}), "modules against the configuration", each=each,
    takes=lambda _, weighed: weighed and weighed.adapter.config.path and weighed.adapter.deltas,
)  # fmt: skip
