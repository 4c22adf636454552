"""Find code beside the weights, and the config fields that make loaders run or import something.

Sources: peft#3085 (`auto_mapping.parent_library` imports any module; an allow-list since PR #3090),
peft#2888 (`tokenizer_kwargs`); of fields at any depth, `formats/hooks.py`.
Limits: names and fields only; what is in scripts is for `formats/scripts.py`, and code fetched from
elsewhere by an allowed library is invisible here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from adapterscan.detectors.detector import Detector
from adapterscan.formats.peft_sinks import SINKS
from adapterscan.formats.programs import run_by
from adapterscan.model import Evidence, FileKind, Need, Scalar, Subject
from adapterscan.reading import Contents
from adapterscan.text import printable

#: peft 0.21.2 imports these libraries for `auto_mapping`, and nothing else.
KNOWN_LIBRARIES = frozenset({"diffusers", "lerobot", "megatron", "transformers"})
_SINKS = {sink.field: sink for sink in SINKS}


def run(contents: Contents) -> Iterator[Evidence]:
    """Yield `file.code`, `config.import_sink` and `config.code_hook`."""
    files = [file.path for file in contents.artifact.files if file.kind is FileKind.CODE]
    modules = {part.split(".", 1)[0] for path in files for part in PurePosixPath(path).parts}
    hooks: list[Evidence] = []
    for config in contents.configs.values():
        hooks += _import_sinks(config.path, config.raw, modules)
    for hook in contents.hooks:
        subject = Subject("field", hook.path, hook.field)
        hooks.append(Evidence("config.code_hook", subject, hook.value))
    yield from hooks
    named = " ".join(str(hook.value) for hook in hooks)
    for path in files:
        name = PurePosixPath(path)
        details: dict[str, Scalar] = {
            "referenced": len(name.stem) > 2 and name.stem in named,
            "run_by": run_by(path),
        }
        yield Evidence("file.code", Subject("file", path), name.suffix or name.name, "", details)


def _import_sinks(path: str, raw: Mapping[str, Any], shipped: set[str]) -> Iterator[Evidence]:
    mapping = raw.get("auto_mapping")
    if isinstance(mapping, dict) and mapping.get("parent_library") is not None:
        reached = raw.get("task_type") is None
        library = mapping["parent_library"]
        yield _sink(path, "auto_mapping.parent_library", library, shipped, reached)
    if raw.get("megatron_core") not in (None, "megatron.core"):
        reached = bool(raw.get("megatron_config"))
        yield _sink(path, "megatron_core", raw["megatron_core"], shipped, reached)
    arguments = raw.get("tokenizer_kwargs")
    if isinstance(arguments, dict) and arguments.get("trust_remote_code"):
        subject = Subject("field", path, "tokenizer_kwargs.trust_remote_code")
        yield Evidence("config.code_hook", subject, True)


def _sink(path: str, field: str, value: object, shipped: set[str], reached: bool) -> Evidence:
    """`reached`: as the config stands, PEFT gets as far as the import."""
    text = printable(str(value))
    top = str(value).split(".", 1)[0]
    details: dict[str, Scalar] = {
        "known": top in KNOWN_LIBRARIES,
        "shipped": top in shipped,
        "reached": reached,
        "when": _SINKS[field].when,
        "affected": _SINKS[field].affected,
    }
    return Evidence("config.import_sink", Subject("field", path, field), text, details=details)


DETECTOR = Detector("code", 1, frozenset({Need.FILES}), "code, import and code hooks", run)
