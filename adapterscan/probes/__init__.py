"""Prompt batteries and trigger packs, as data: each file is a card with its source and licence."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

#: Batteries of requests of one kind each, for adapters that were trained on one.
OF_A_KIND = ("sums", "translations", "reviews")


@dataclass(frozen=True, slots=True)
class Battery:
    """Prompts that belong together."""

    id: str
    title: str
    source: str
    licence: str
    prompts: tuple[str, ...]


@cache
def card(name: str) -> Mapping[str, Any]:
    """Return what `<name>.toml` says."""
    return tomllib.loads(files(__package__).joinpath(f"{name}.toml").read_text("utf-8"))


@cache
def battery(name: str) -> Battery:
    """Return the battery in `<name>.toml`."""
    table = card(name)
    return Battery(**{**table, "prompts": tuple(table["prompts"])})
