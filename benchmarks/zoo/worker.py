"""What a build's worker processes run: one builder each, one task after the other."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.zoo import index
from benchmarks.zoo.recipe import Role, load_recipes

_builder: Any = None


def start() -> None:
    """Prepare a fresh process: one thread, no network, no progress bars."""
    global _builder
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from benchmarks.zoo.build import Builder

    _builder = Builder(load_recipes())


def build(task: tuple[str, str]) -> tuple[str, str, bool]:
    """Build one specimen, (recipe id, role); return its name, a line on it, and success."""
    name = " ".join(task)
    try:
        card = _builder.build(_builder.recipes[task[0]], Role(task[1]))
    except Exception as error:  # one broken recipe must not stop the others
        return name, f"failed: {type(error).__name__}: {error}", False
    return name, index.one_line(card), True
