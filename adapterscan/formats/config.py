"""Read `adapter_config.json` into typed fields, keeping every oddity as evidence.

Field names and defaults are PEFT's (0.21.2). A field of the wrong type is reported and treated as
absent; nothing in a config is trusted for a size: ranks come from the tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from adapterscan.errors import LimitExceeded, Malformed
from adapterscan.formats import strict_json
from adapterscan.formats.peft_types import COMMON_FIELDS, FIELDS
from adapterscan.formats.strict_json import Pairs
from adapterscan.model import Evidence, Scalar, Subject
from adapterscan.text import printable

CONFIG_LIMIT = 4 << 20
_DEPTH_SHOWN = 6
_LIST_LIMIT = 10_000
_VALUES_LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The fields of a PEFT config that decide what an adapter does. `raw` has all of them."""

    path: str  # of the file, "" when there is none
    peft_type: str = ""  # upper case; "" when the file does not say
    task_type: str = ""
    base_model: str | None = None
    revision: str | None = None
    r: int | None = None
    alpha: float | None = None
    rslora: bool = False
    dora: bool = False
    fan_in_fan_out: bool = False
    bias: str = "none"
    target_modules: str | tuple[str, ...] | None = None
    target_parameters: tuple[str, ...] = ()
    modules_to_save: tuple[str, ...] = ()
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    trainable_tokens: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()


def read_config(data: bytes, path: str) -> AdapterConfig:
    """Parse a config file. Raises Malformed or LimitExceeded when there is no object to read."""
    duplicates: list[str] = []

    def keep_last(pairs: Pairs) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                duplicates.append(key)
            result[key] = value
        return result

    raw = strict_json.parse(
        data, path, limit=CONFIG_LIMIT, values=_VALUES_LIMIT, on_object=keep_last
    )
    if not isinstance(raw, dict):
        raise Malformed(
            path, f"holds a JSON {_json_type(raw)} where an object belongs", defect="not-an-object",
            hint="PEFT cannot load this; ask the author for the real config",
        )  # fmt: skip
    reader = _Reader(path, raw)
    for key in dict.fromkeys(duplicates):
        reader.note("config.duplicate_key", key, printable(key))
    target = reader.names_or_pattern("target_modules")
    return AdapterConfig(
        path=path,
        peft_type=(reader.text("peft_type") or "").upper(),
        task_type=(reader.text("task_type") or "").upper(),
        base_model=reader.text("base_model_name_or_path"),
        revision=reader.text("revision"),
        r=reader.integer("r"),
        alpha=reader.number("lora_alpha"),
        rslora=reader.flag("use_rslora"),
        dora=reader.flag("use_dora"),
        fan_in_fan_out=reader.flag("fan_in_fan_out"),
        bias=reader.text("bias") or "none",
        target_modules=target,
        target_parameters=reader.names("target_parameters"),
        modules_to_save=reader.names("modules_to_save"),
        rank_pattern={k: int(v) for k, v in reader.numbers("rank_pattern").items() if _whole(v)},
        alpha_pattern=reader.numbers("alpha_pattern"),
        trainable_tokens=bool(raw.get("trainable_token_indices")),
        raw=raw,
        evidence=(*reader.evidence, *_unknown_fields(path, raw)),
    )


class _Reader:
    """Typed access to one config; what does not fit becomes evidence and reads as absent."""

    def __init__(self, path: str, raw: Mapping[str, Any]) -> None:
        self.path = path
        self.raw = raw
        self.evidence: list[Evidence] = []

    def note(self, name: str, key: str, value: Scalar) -> None:
        self.evidence.append(Evidence(name, Subject("field", self.path, key), value))

    def text(self, key: str) -> str | None:
        value = self.raw.get(key)
        if isinstance(value, str):
            return value
        if value is not None and not (key == "bias" and isinstance(value, bool)):
            self._wrong(key, value, "text")
        return None

    def flag(self, key: str) -> bool:
        value = self.raw.get(key)
        if value is not None and not isinstance(value, bool):
            self._wrong(key, value, "true or false")
        return bool(value)

    def integer(self, key: str) -> int | None:
        value = self.raw.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if value is not None and not isinstance(value, (list, dict)):
            self._wrong(key, value, "a whole number")
        return None

    def number(self, key: str) -> float | None:
        value = self.raw.get(key)
        if _numeric(value):
            return _as_float(value)
        if value is not None:
            self._wrong(key, value, "a number")
        return None

    def names(self, key: str) -> tuple[str, ...]:
        value = self.raw.get(key)
        if value is None:
            return ()
        if isinstance(value, str):
            return (value,)
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            self._bounded(key, value)
            return tuple(value)
        self._wrong(key, value, "a list of names")
        return ()

    def names_or_pattern(self, key: str) -> str | tuple[str, ...] | None:
        value = self.raw.get(key)
        if isinstance(value, str):
            return value
        return self.names(key) if value is not None else None

    def numbers(self, key: str) -> dict[str, float]:
        value = self.raw.get(key)
        if value is None:
            return {}
        if isinstance(value, dict) and all(_numeric(item) for item in value.values()):
            self._bounded(key, value)
            return {name: _as_float(item) for name, item in value.items()}
        if not isinstance(value, dict) or not all(isinstance(v, list) for v in value.values()):
            self._wrong(key, value, "names with numbers")  # AdaLoRA has lists of flags here
        return {}

    def _bounded(self, key: str, value: Sized) -> None:
        """To leave out the rest would be to miss the one entry that matters."""
        if len(value) > _LIST_LIMIT:
            raise LimitExceeded(
                self.path, f"{key} has {len(value):,} entries, over the limit of {_LIST_LIMIT:,}",
                hint="PEFT saves a few names; ask the author what the rest is",
            )  # fmt: skip

    def _wrong(self, key: str, value: Any, wanted: str) -> None:
        self.note("config.wrong_type", key, f"{_json_type(value)} where {wanted} belongs")


def _unknown_fields(path: str, raw: Mapping[str, Any]) -> list[Evidence]:
    """Fields that no tuner of PEFT 0.21.2 has; PEFT drops them with a warning."""
    kind = str(raw.get("peft_type", "")).upper()
    if kind not in FIELDS:
        return []
    return [
        Evidence("config.unknown_field", Subject("field", path, key), _json_type(value))
        for key, value in raw.items()
        if key not in COMMON_FIELDS and key not in FIELDS[kind]
    ]


def _numeric(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _whole(value: float) -> bool:
    return math.isfinite(value) and value == int(value)


def _json_type(value: Any) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "true/false", type(None): "null"}
    return names.get(type(value), "number")
