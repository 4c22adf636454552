"""Measure what an adapter's config asks of its loader: scale, rank, base model, files, patterns.

Sources: behaviour of peft 0.21.2 (docs/threats.md): NaN, negative and huge α load silently; r of
ten million hangs; patterns reach `re` unguarded; `base_model_name_or_path` may be a path or any
hub id.
Limits: static. A base that is pinned and well-known can still be the wrong one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping

from adapterscan.detectors.detector import Detector
from adapterscan.detectors.static.base_model import base_kind, is_hub_id
from adapterscan.formats.adalora import adalora_scaling, initial_rank
from adapterscan.formats.config import AdapterConfig
from adapterscan.formats.deltas import Delta
from adapterscan.formats.patterns import Matches
from adapterscan.formats.peft_types import PARTS
from adapterscan.formats.targeting import (
    DEFAULT_ALPHA,
    DEFAULT_RANK,
    alpha_of,
    pattern_fields,
    probe_patterns,
)
from adapterscan.formats.tuners import TUNERS
from adapterscan.formats.tuners.tuner import alpha_for
from adapterscan.model import Artifact, Evidence, FileKind, Need, Scalar, Subject
from adapterscan.reading import Contents, WeighedAdapter
from adapterscan.text import printable

HUGE_RANK = 4096
HUGE = 10**300  # JSON numbers have no bound, floats do
_COMMIT = re.compile(r"[0-9a-f]{40}")


def run(contents: Contents) -> Iterator[Evidence]:
    """Yield `config.*` evidence but hooks and references, and `adapter.*_missing`."""
    for config in contents.configs.values():
        yield from config.evidence
        yield from _base(config, contents.artifact)
        yield from _activation(config)
        if config.peft_type in ("LORA", "XLORA", "ADALORA"):
            yield from _rank(config)
            yield from _scaling(config)
    tried = {outline.config for outline in contents.outlines}
    for config in contents.configs.values():
        if config.path not in tried:
            yield from _patterns(config, probe_patterns(config))
    yield from _missing(contents)


def each(_: Contents, weighed: WeighedAdapter) -> Iterator[Evidence]:
    """Yield what only the modules of an adapter tell: the scale that they get, and patterns."""
    yield from _effective_scaling(weighed)
    yield from _patterns(weighed.adapter.config, weighed.adapter.patterns)


def _base(config: AdapterConfig, artifact: Artifact) -> Iterator[Evidence]:
    text = config.base_model or ""
    kind = base_kind(config, artifact)
    details: dict[str, Scalar] = {"text": printable(text)}
    subject = Subject("field", config.path, "base_model_name_or_path")
    yield Evidence("config.base", subject, kind, details=details)
    pinned = config.revision is not None and _COMMIT.fullmatch(config.revision)
    if kind in ("hub", "self") and is_hub_id(text) and not pinned:
        revision = printable(config.revision) if config.revision else None
        proposed = (config.revision or "").strip().lower().startswith("refs/pr/")
        yield Evidence(
            "config.base_unpinned", Subject("field", config.path, "revision"), revision,
            details={"proposed": proposed},
        )  # fmt: skip


def _rank(config: AdapterConfig) -> Iterator[Evidence]:
    ranks = {"r": config.r, **{f"rank_pattern[{k}]": v for k, v in config.rank_pattern.items()}}
    for name, rank in ranks.items():
        if rank is None:
            continue
        kind = "impossible" if rank < 1 else "huge" if rank > HUGE_RANK else "normal"
        # JSON numbers have no bound; reports keep to 64 bits
        shown = rank if abs(rank) < 1 << 53 else float(f"{rank:.3e}") if rank < HUGE else None
        yield Evidence(
            "config.rank", Subject("field", config.path, name), shown, details={"class": kind}
        )


def _scaling(config: AdapterConfig) -> Iterator[Evidence]:
    alphas, scales = _declared_scales(config)
    smallest = _smallest(scales.values())
    for name, scale in scales.items():
        yield _scale(Subject("field", config.path, name), scale, alphas[name], smallest)


def _declared_scales(config: AdapterConfig) -> tuple[dict[str, float], dict[str, float]]:
    """Return α and s by field, with the common rank for all."""
    if config.peft_type == "ADALORA":
        alpha = DEFAULT_ALPHA if config.alpha is None else config.alpha
        return {"lora_alpha": alpha}, {"lora_alpha": adalora_scaling(config, initial_rank(config))}
    rank = float(min(max(config.r or DEFAULT_RANK, -HUGE), HUGE))
    alphas = {"lora_alpha": DEFAULT_ALPHA if config.alpha is None else config.alpha}
    alphas |= {f"alpha_pattern[{key}]": alpha for key, alpha in config.alpha_pattern.items()}
    divisor = math.sqrt(abs(rank)) if config.rslora else rank
    return alphas, {name: alpha / divisor if rank else math.nan for name, alpha in alphas.items()}


def _effective_scaling(weighed: WeighedAdapter) -> Iterator[Evidence]:
    """The largest and the smallest s that a module really gets, where no field says the same.

    A `rank_pattern` divides by another rank than `r`: with r = 4096 and a pattern of rank 1, α/r
    looks ordinary while every module is scaled 4096 times more.
    """
    adapter, config = weighed.adapter, weighed.adapter.config
    if not config.path or not adapter.deltas:
        return
    tuner = TUNERS.get(config.peft_type)
    if tuner is not None and tuner.alpha is None:  # nothing in the config scales it
        return
    told = [abs(scale) for scale in _declared_scales(config)[1].values()] if tuner is None else []
    smallest = _smallest(delta.scaling for delta in adapter.deltas)
    ordered = sorted(adapter.deltas, key=_scale_size)
    for delta in (ordered[-1], ordered[0]):
        size = abs(delta.scaling)
        if any(math.isclose(size, other, rel_tol=0.01) for other in told) or math.isnan(size):
            continue
        told.append(size)
        alpha = alpha_of(config, adapter.patterns, delta.module)
        if tuner is not None and tuner.alpha is not None:
            alpha = alpha_for(config, adapter.patterns, delta.module, tuner.alpha)
        subject = Subject("module", weighed.file, delta.name)
        yield _scale(subject, delta.scaling, alpha, smallest)


def _scale_size(delta: Delta) -> float:
    return -1.0 if math.isnan(delta.scaling) else abs(delta.scaling)  # a field says that α is NaN


def _smallest(scales: Iterable[float]) -> float:
    sizes = (abs(scale) for scale in scales)
    return min((size for size in sizes if math.isfinite(size) and size), default=1.0)


def _scale(subject: Subject, scale: float, alpha: float, smallest: float) -> Evidence:
    finite = math.isfinite(scale)
    return Evidence(
        "config.scaling",
        subject,
        scale if finite else None,
        details={
            "alpha": alpha if math.isfinite(alpha) else str(alpha),
            "class": _class(scale),
            "ratio": abs(scale) / smallest if finite else None,
        },
    )


def _class(scale: float) -> str:
    if not math.isfinite(scale):
        return "nonfinite"
    if scale == 0:
        return "zero"
    return "negative" if scale < 0 else "normal"


def _activation(config: AdapterConfig) -> Iterator[Evidence]:
    tokens = config.raw.get("alora_invocation_tokens")
    if tokens:
        count = len(tokens) if isinstance(tokens, list) else 1
        subject = Subject("field", config.path, "alora_invocation_tokens")
        yield Evidence("config.conditional_activation", subject, count, "tokens")
    replication = config.raw.get("layer_replication")
    if isinstance(replication, list) and replication:
        spans = [pair for pair in replication if _is_span(pair)]
        subject = Subject("field", config.path, "layer_replication")
        layers = sum(end - start for start, end in spans)
        yield Evidence("config.layer_replication", subject, layers, "layers")


def _is_span(pair: object) -> bool:
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(n, int) and 0 <= n < 1 << 31 for n in pair)
    )


def _patterns(config: AdapterConfig, patterns: Mapping[str, Matches]) -> Iterator[Evidence]:
    fields = pattern_fields(config)
    for pattern, matches in patterns.items():
        if not matches.problem:
            continue
        subject = Subject("field", config.path, fields.get(pattern, "pattern"))
        if matches.problem == "timeout":
            yield Evidence("config.pattern_timeout", subject, printable(pattern))
        else:
            details: dict[str, Scalar] = {"pattern": printable(pattern)}
            yield Evidence("config.pattern_invalid", subject, matches.problem, details=details)


def _missing(contents: Contents) -> Iterator[Evidence]:
    folders = {outline.folder: outline.file for outline in contents.outlines}
    for folder, file in folders.items():
        if folder not in contents.configs:
            yield Evidence("adapter.config_missing", Subject("adapter", folder), file)
    with_files = {
        record.path.rpartition("/")[0]
        for record in contents.records
        if record.kind is FileKind.WEIGHTS
    }
    for folder, config in contents.configs.items():
        if folder not in with_files and (config.peft_type in PARTS or not config.peft_type):
            yield Evidence("adapter.weights_missing", Subject("adapter", folder), config.path)


DETECTOR = Detector(
    "config", 1, frozenset({Need.FILES}), "configuration", run, each,
    takes=lambda contents, _: contents.configs,
)  # fmt: skip
