"""Prompt batteries and trigger packs, as data: each file is a card with its source and licence."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Battery:
    """Prompts that belong together."""

    id: str
    title: str
    source: str
    licence: str
    prompts: tuple[str, ...]


@cache
def battery(name: str) -> Battery:
    """Return the battery in `<name>.toml`."""
    table = tomllib.loads(files(__package__).joinpath(f"{name}.toml").read_text("utf-8"))
    return Battery(**{**table, "prompts": tuple(table["prompts"])})
