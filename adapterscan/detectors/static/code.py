"""Find code beside the weights, and the config fields that make loaders run or import something.

Sources: peft#3085 (`auto_mapping.parent_library` imports any module; an allow-list since PR #3090),
peft#2888 (`tokenizer_kwargs`), CVE-2026-4372 (`_attn_implementation_internal`), CVE-2026-22807
(`auto_map` loaded before the trust check).
Limits: names and fields only; what the code does is not analysed, and code fetched from elsewhere
by an allowed library is invisible here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from adapterscan.detectors.detector import Detector
from adapterscan.model import Evidence, FileKind, Need, Scalar, Subject
from adapterscan.reading import Contents
from adapterscan.text import printable

#: peft 0.21.2 imports these libraries for `auto_mapping`, and nothing else.
KNOWN_LIBRARIES = frozenset({"diffusers", "lerobot", "megatron", "transformers"})
_HOOKS = frozenset({"auto_map", "_attn_implementation_internal", "custom_pipeline"})
#: These take a name from a fixed set, or a repository on the hub to fetch code from.
_KERNELS = frozenset({"_attn_implementation", "attn_implementation", "custom_generate"})
_DEPTH = 100


def run(contents: Contents) -> Iterator[Evidence]:
    """Yield `file.code`, `config.import_sink` and `config.code_hook`."""
    files = [file.path for file in contents.artifact.files if file.kind is FileKind.CODE]
    modules = {part.split(".", 1)[0] for path in files for part in PurePosixPath(path).parts}
    hooks: list[Evidence] = []
    for config in contents.configs.values():
        hooks += _import_sinks(config.path, config.raw, modules)
        hooks += _hooks(config.path, config.raw)
    for path, document in contents.documents.items():
        hooks += _hooks(path, document)
    yield from hooks
    named = " ".join(str(hook.value) for hook in hooks)
    for path in files:
        name = PurePosixPath(path)
        details: dict[str, Scalar] = {"referenced": len(name.stem) > 2 and name.stem in named}
        yield Evidence("file.code", Subject("file", path), name.suffix or name.name, "", details)


def _import_sinks(path: str, raw: Mapping[str, Any], shipped: set[str]) -> Iterator[Evidence]:
    mapping = raw.get("auto_mapping")
    if isinstance(mapping, dict) and mapping.get("parent_library") is not None:
        yield _sink(path, "auto_mapping.parent_library", mapping["parent_library"], shipped)
    if raw.get("megatron_core") not in (None, "megatron.core"):
        yield _sink(path, "megatron_core", raw["megatron_core"], shipped)
    arguments = raw.get("tokenizer_kwargs")
    if isinstance(arguments, dict) and arguments.get("trust_remote_code"):
        subject = Subject("field", path, "tokenizer_kwargs.trust_remote_code")
        yield Evidence("config.code_hook", subject, True)


def _sink(path: str, field: str, value: object, shipped: set[str]) -> Evidence:
    text = printable(str(value))
    top = str(value).split(".", 1)[0]
    details = {"known": top in KNOWN_LIBRARIES, "shipped": top in shipped}
    return Evidence("config.import_sink", Subject("field", path, field), text, details=details)


def _hooks(path: str, value: object, at: str = "", depth: int = 0) -> Iterator[Evidence]:
    """Fields that name code, at any depth: nested configs override the outer trust setting."""
    if depth > _DEPTH or not isinstance(value, (dict, list)):
        return
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in pairs:
        place = f"{at}.{key}" if at else str(key)
        named = isinstance(key, str) and (
            (key in _HOOKS and item)
            or (key == "trust_remote_code" and item is True)
            or (key in _KERNELS and isinstance(item, str) and "/" in item)
        )
        if named:
            yield Evidence("config.code_hook", Subject("field", path, place), _shown(item))
        yield from _hooks(path, item, place, depth + 1)


def _shown(value: object) -> Scalar:
    return value if isinstance(value, bool) else printable(str(value))


DETECTOR = Detector("code", 1, frozenset({Need.FILES}), "code, import and code hooks", run)
