"""Make a folder that peft can load an adapter from, with nothing in it that its author wrote but
tensors.

The config is written anew from what was measured: exact module names where the adapter has a
pattern (a pattern can hang `re`), ranks from the tensors, scales from our own reading of the
config. No field that names a file, a module to import, a tokenizer or a method is carried over
(docs/threats.md). The weights are the bytes that were scanned, checked by their digest; AdaLoRA's
are rewritten as plain LoRA.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapterscan.errors import ChangedWhileReading, Unsupported
from adapterscan.formats.accounting import Role
from adapterscan.formats.deltas import Delta
from adapterscan.formats.peft import Adapter
from adapterscan.formats.peft_types import COMMON_FIELDS, FIELDS
from adapterscan.model import File
from adapterscan.reading import Contents
from adapterscan.weighing.factors import Factors

_PLAIN = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_PREFIX = "base_model.model."
_SUPPORTED = frozenset({"LORA", "ADALORA"})
_KINDS = frozenset({"linear", "embedding"})
_INITIALISATIONS = (None, True, False, "gaussian")
#: Fields of peft that we read ourselves, or that do nothing at inference. Any other one that is set
#: means something that we would not stage: it fails closed, new fields of peft included.
_UNDERSTOOD = frozenset(
    "peft_type auto_mapping base_model_name_or_path revision task_type inference_mode peft_version "
    "target_modules exclude_modules modules_to_save layers_to_transform layers_pattern bias "
    "fan_in_fan_out runtime_config alpha_pattern init_lora_weights loftq_config lora_alpha "
    "lora_bias lora_dropout megatron_core qalora_group_size r rank_pattern target_parameters "
    "trainable_token_indices use_dora use_rslora".split()
)
_CHUNK = 1 << 20
_FOLDED = 1 << 28  # elements that are held to be rewritten: a gigabyte
_PATTERNS = 2000  # peft tries each on each module
_LABELS = 1000  # of a head: its answers to every row travel as JSON
_TASKS = ("", "CAUSAL_LM", "SEQ_CLS")
_NEXT = "its files and weights were analysed; to see its behaviour, run it yourself in a sandbox"


def stage(contents: Contents, adapter: Adapter, folder: Path) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` of `adapter` into `folder`.

    `contents`: what it was read from, which knows the digest of the bytes that were scanned.
    Raises Unsupported for what cannot be loaded this way yet, and ChangedWhileReading where the
    weight file is not what was scanned any more.
    """
    config = _config(adapter)
    path = adapter.weights.path
    file = next(file for file in contents.artifact.files if file.path == path)
    sha256 = next(record.sha256 for record in contents.records if record.path == path)
    if adapter.weights.container != "safetensors" or file.local is None:
        raise _not_yet(adapter, "only safetensors files can be loaded to be probed")
    if adapter.config.peft_type == "ADALORA":
        _fold(adapter, file, sha256 or "", folder / "adapter_model.safetensors")
    else:
        _copy(adapter, file.local, sha256, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n", "utf-8")


def _copy(adapter: Adapter, local: Path, sha256: str | None, target: Path) -> None:
    """Copy the bytes that were scanned."""
    digest = hashlib.sha256()
    with local.open("rb") as source, target.open("wb") as copy:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            copy.write(chunk)
    if sha256 is None or digest.hexdigest() != sha256:
        raise ChangedWhileReading(
            adapter.weights.path, "changed after it was scanned",
            hint="scan it again where nobody writes",
        )  # fmt: skip


def _fold(adapter: Adapter, file: File, sha256: str, target: Path) -> None:
    """Write AdaLoRA's updates as plain LoRA, E folded into B, in float32.

    Raises Unsupported where anything else is in the file, or it is too large to be held.
    """
    from safetensors.numpy import save_file  # comes with the probe extra

    if any(item.role is not Role.ADAPTER for item in adapter.accounted):
        raise _not_yet(adapter, "it has tensors beside its updates")
    if sum(math.prod(t.shape) for d in adapter.deltas for t in (d.a, d.b)) > _FOLDED:
        raise _not_yet(adapter, "its updates are too large to be rewritten")
    tensors: dict[str, npt.NDArray[np.float32]] = {}
    with Factors(file, sha256) as stored:
        for delta in filter(lambda delta: delta.rank, adapter.deltas):
            factors = stored.of(delta)
            name = f"{_PREFIX}{_module(adapter, delta.module)}"
            tensors[f"{name}.lora_A.weight"] = np.ascontiguousarray(factors.a, np.float32)
            tensors[f"{name}.lora_B.weight"] = np.ascontiguousarray(factors.b, np.float32)
    save_file(tensors, target, metadata={"format": "pt"})


def _diagonal(adapter: Adapter) -> bool:
    return any(delta.diag is not None for delta in adapter.deltas)


def _config(adapter: Adapter) -> dict[str, Any]:
    """Return the config that says what the tensors are, and nothing else."""
    given = adapter.config
    if given.peft_type not in _SUPPORTED:
        kind = given.peft_type or "of an unknown type"
        raise _not_yet(adapter, f"probing adapters of type {kind} is not supported yet")
    if adapter.problems:
        first = adapter.problems[0]
        raise _not_yet(adapter, f"a module is not understood: {first.module}: {first.reason}")
    odd = {delta.kind for delta in adapter.deltas} - _KINDS
    if odd or given.target_parameters:
        raise _not_yet(adapter, f"updates of kind {', '.join(sorted(odd)) or 'parameter'}")
    if given.task_type not in _TASKS:
        raise _not_yet(adapter, f"probing adapters for {given.task_type} is not supported yet")
    for field in sorted(COMMON_FIELDS | FIELDS["LORA"]):
        if field not in _UNDERSTOOD and given.raw.get(field):
            raise _not_yet(adapter, f"{field} is set")
    if given.raw.get("kasa_config") or (given.peft_type == "LORA" and _diagonal(adapter)):
        raise _not_yet(adapter, "it has a diagonal between its factors")
    if given.raw.get("init_lora_weights") not in _INITIALISATIONS:
        raise _not_yet(adapter, "its initialisation changes the base")
    unused = set(adapter.untargeted)  # a loader skips them, so they must stay untargeted
    # AdaLoRA prunes modules away altogether, and LoRA has no rank of 0
    used = [delta for delta in adapter.deltas if delta.module not in unused and delta.rank]
    modules = {_module(adapter, delta.module): delta for delta in used}
    for delta in used:
        _as_saved(adapter, delta)
    shapes = Counter((delta.rank, _alpha(adapter, delta)) for delta in modules.values())
    rank, alpha = shapes.most_common(1)[0][0] if shapes else (1, 1.0)
    ranks = {m: d.rank for m, d in modules.items() if d.rank != rank}
    alphas = {m: _alpha(adapter, d) for m, d in modules.items() if _alpha(adapter, d) != alpha}
    if len(ranks) + len(alphas) > _PATTERNS:
        raise _not_yet(adapter, "thousands of modules have a rank or scale of their own")
    declared = (item for item in adapter.accounted if item.role is Role.DECLARED)
    whole = sorted(
        {_owner(adapter, item.path) for item in declared if not item.why.startswith("bias:")}
    )
    if set(whole) & modules.keys():
        raise _not_yet(adapter, "a module is both replaced and updated")
    if given.task_type == "SEQ_CLS":
        _one_head(adapter, whole)
    return {
        "peft_type": "LORA",
        "task_type": given.task_type or "CAUSAL_LM",
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": _pattern(ranks),
        "alpha_pattern": _pattern(alphas),
        "target_modules": sorted(modules),
        "modules_to_save": whole or None,
        "use_dora": given.dora,
        "fan_in_fan_out": given.fan_in_fan_out,
        "bias": given.bias if given.bias in ("all", "lora_only") else "none",
        "lora_bias": given.raw.get("lora_bias") is True,
        "trainable_token_indices": _indices(adapter, given.raw.get("trainable_token_indices")),
    }


def _one_head(adapter: Adapter, whole: Sequence[str]) -> None:
    """Raise Unsupported unless all that is saved whole is the head of a decoder: `score.weight`.

    Its shape is (labels, width): one label is a reward, more are classes. `classifier` is what
    encoders call theirs; they are read at another place, and it is not done yet.
    """
    if "classifier" in {name.split(".")[0] for name in whole}:
        raise _not_yet(adapter, "its head is an encoder's (classifier), not supported yet")
    if list(whole) != ["score"]:
        raise _not_yet(adapter, "what it saves whole is not one head named score")
    heads = [item.tensor for item in adapter.accounted if item.path.startswith("score.")]
    plain = [head for head in heads if head.name == f"{_PREFIX}score.weight"]
    if heads != plain or len(plain[0].shape) != 2:
        raise _not_yet(adapter, "its head is not one matrix without a bias")
    if not 1 <= plain[0].shape[0] <= _LABELS:
        raise _not_yet(adapter, f"its head has {plain[0].shape[0]:,} labels")


def _as_saved(adapter: Adapter, delta: Delta) -> None:
    """Raise Unsupported where a factor is not called as peft saves it: a loader may skip it."""
    for factor in (delta.a, delta.b):
        if not factor.name.startswith(f"{_PREFIX}{delta.module.removeprefix(_PREFIX)}.lora_"):
            raise _not_yet(adapter, "its tensors have names that peft would not load")


def _alpha(adapter: Adapter, delta: Delta) -> float:
    """Return the alpha that gives the delta's scale where rank-stabilised scaling is off."""
    alpha = delta.scaling * delta.rank
    if not math.isfinite(alpha):
        raise _not_yet(adapter, "a scale is not finite")
    return alpha


def _pattern(values: dict[str, Any]) -> dict[str, Any]:
    """Return values by name as peft matches them: by `re`, after any prefix but for the `^`."""
    return {"^" + re.escape(name): value for name, value in sorted(values.items())}


def _module(adapter: Adapter, name: str) -> str:
    plain = name.removeprefix(_PREFIX)
    if not _PLAIN.fullmatch(plain):
        raise _not_yet(adapter, "a module's name has odd characters")
    return plain


def _owner(adapter: Adapter, path: str) -> str:
    return _module(adapter, path.rpartition(".")[0])


def _indices(adapter: Adapter, given: Any) -> Any:
    """Return `trainable_token_indices` if it is what peft writes: numbers, by layer or alone."""
    if not given:
        return None
    lists: Sequence[Any] = list(given.values()) if isinstance(given, dict) else [given]
    whole = all(
        isinstance(found, list) and all(type(item) is int and item >= 0 for item in found)
        for found in lists
    )
    if not whole:
        raise _not_yet(adapter, "trainable_token_indices is not a list of token numbers")
    if isinstance(given, dict):
        return {_module(adapter, name): found for name, found in given.items()}
    return given


def _not_yet(adapter: Adapter, why: str) -> Unsupported:
    return Unsupported(adapter.weights.path, why, hint=_NEXT)
