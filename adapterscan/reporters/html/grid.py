"""Lay out modules as a grid: a row for each kind of module, a column for each layer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from adapterscan.model import Evidence

ROWS, COLUMNS = 40, 256  # that are drawn; a mixture of experts shares rows
_LAYER = re.compile(r"(?:^|\.)(\d{1,6})(?=\.|$)")
#: As data passes through a block; other kinds follow by name.
_ORDER = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Grid:
    """Where modules lie. `place` maps a module to (row, column); `left_out` found no room."""

    rows: tuple[str, ...]
    columns: tuple[int, ...]  # layers; −1 for modules that are in none
    place: dict[str, tuple[int, int]]
    left_out: int


def kind_of(module: str) -> str:
    """Return the last two names of a module path without numbers, `self_attn.q_proj`."""
    names = [part for part in module.split(".") if not part.isdigit()]
    return ".".join(names[-2:]) or module


def layer_of(module: str) -> int:
    """Return the first number in a module path, −1 where there is none."""
    found = _LAYER.search(module)
    return int(found[1]) if found else -1


def grid(modules: Iterable[str]) -> Grid:
    """Return where each of `modules` is drawn: the first ROWS kinds and COLUMNS layers."""
    names = list(dict.fromkeys(modules))
    kinds = sorted({kind_of(module) for module in names}, key=_rank)
    layers = sorted({layer_of(module) for module in names})
    rows = {kind: index for index, kind in enumerate(kinds[:ROWS])}
    columns = {layer: index for index, layer in enumerate(layers[:COLUMNS])}
    place = {
        module: (rows[kind_of(module)], columns[layer_of(module)])
        for module in names
        if kind_of(module) in rows and layer_of(module) in columns
    }
    return Grid(tuple(rows), tuple(columns), place, len(names) - len(place))


def modules_of(facts: Sequence[Evidence]) -> list[str]:
    """Return the modules that `facts` are about."""
    return [item.subject.name for item in facts]


def _rank(kind: str) -> tuple[int, str]:
    last = kind.rpartition(".")[2]
    return _ORDER.index(last) if last in _ORDER else len(_ORDER), kind
