"""Name what a config makes a loader fetch, open or unpickle, and every other path that it holds.

Source: peft 0.21.2 and earlier releases, field by field (`formats/peft_sinks.py`): some of these
files are read by `torch.load`, which runs code with torch before 2.6 (CVE-2025-32434 shows that
`weights_only` did not help before that either). Other trainers read fields that PEFT drops.
Limits: what the path or repository holds is not looked at, and a repository's name that leads
elsewhere looks like any other. A path in a field that we do not know may be a mere note.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import PurePosixPath
from typing import Any

from adapterscan.detectors.detector import Detector
from adapterscan.detectors.static.base_model import is_hub_id
from adapterscan.formats.peft_sinks import SINKS, Sink, reached
from adapterscan.model import Evidence, Need, Scalar, Subject
from adapterscan.reading import Contents
from adapterscan.text import printable

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,20}:(?://|\\\\)")
_ROOTED = re.compile(r"[/~\\]|[A-Za-z]:[/\\]")
#: What trainers and loaders open as weights, by suffix; most are pickles.
_OPENED = (
    *(".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth", ".so"),
    *(".gguf", ".h5", ".nemo", ".py", ".safetensors", ".tar", ".zip"),
)
#: Names of modules and patterns, which look like paths, and what other facts are about.
_NAMES = frozenset(
    "auto_mapping base_model_name_or_path exclude_modules feedforward_modules layers_pattern "
    "megatron_core modules_to_save target_modules target_parameters trainable_token_indices".split()
)
_LONGEST = 4096  # of a path that anything opens
_TOLD_ELSEWHERE = frozenset({"auto_mapping.parent_library", "megatron_core"})


def run(contents: Contents) -> Iterator[Evidence]:
    """Yield `config.external_reference` and `config.path`."""
    files = [file.path for file in contents.artifact.files]
    shipped = {*files, *(str(parent) for path in files for parent in PurePosixPath(path).parents)}
    for folder, config in contents.configs.items():
        told: set[str] = set()  # and all that is below
        for sink in SINKS:
            if sink.field in _TOLD_ELSEWHERE or sink.field in _NAMES:
                continue
            for field, value in _values(sink, config.raw):
                told.add(sink.field.removesuffix("[]"))
                yield _reference(config.path, folder, field, value, sink, shipped)
        for field, text in _texts(config.raw, ()):
            if (kind := _path_kind(text)) and not any(map(told.__contains__, _tops(field))):
                subject = Subject("field", config.path, printable(field))
                details: dict[str, Scalar] = {"target": _target(text, folder, shipped)}
                yield Evidence("config.path", subject, printable(text), kind, details)


def _values(sink: Sink, raw: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for field, value in reached(sink, raw):
        if sink.reaches == "options" and isinstance(value, dict):
            yield from ((f"{field}.{key}", item) for key, item in value.items() if item)
        else:
            yield field, value


def _reference(
    path: str, folder: str, field: str, value: object, sink: Sink, shipped: set[str]
) -> Evidence:
    details: dict[str, Scalar] = {
        "reaches": sink.reaches,
        "call": sink.call,
        "when": sink.when,
        "affected": sink.affected,
        "target": _target(str(value), folder, shipped),
    }
    subject = Subject("field", path, printable(field, 80))
    return Evidence("config.external_reference", subject, printable(str(value)), "", details)


def _target(text: str, folder: str, shipped: set[str]) -> str:
    """Return "address", "shipped", "outside" (a path that leaves the folder), "hub" or "path"."""
    text = text[:_LONGEST].replace("\\", "/")
    if _URL.match(text):
        return "address"
    if _ROOTED.match(text):
        return "outside"
    place = posixpath.normpath(posixpath.join(folder, text))
    if place in shipped:
        return "shipped"
    if place == ".." or place.startswith("../"):
        return "outside"
    return "hub" if is_hub_id(text) else "path"


def _texts(value: object, at: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield every text with its field; `value` is as deep as `strict_json` follows, at most."""
    if isinstance(value, str):
        yield ".".join(at), value
    elif isinstance(value, dict):
        for key, item in value.items():
            if at or not (key in _NAMES or key.endswith("_pattern")):
                yield from _texts(item, (*at, key[:80]))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, at)


def _tops(field: str) -> Iterator[str]:
    """Yield `a`, `a.b`, `a.b.c`."""
    return accumulate(field.split("."), "{}.{}".format)


def _path_kind(text: str) -> str:
    """Return why `text` reads as something to open, or ""."""
    if len(text) > _LONGEST or "\n" in text or not text.strip():
        return ""
    parts = text.replace("\\", "/").split("/")
    if _URL.match(text):
        return "address"
    if ".." in parts or (_ROOTED.match(text) and len(text) > 1):
        return "path"
    named = PurePosixPath(parts[-1])
    return "file" if named.stem and named.suffix.lower() in _OPENED else ""


DETECTOR = Detector(
    "references", 1, frozenset({Need.FILES}), "files and repositories that the config names", run,
    takes=lambda contents, _: contents.configs,
)  # fmt: skip
