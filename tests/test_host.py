"""What is known before a model's process is started: its memory."""

from __future__ import annotations

import sys

import pytest

from adapterscan.errors import RunnerProblem
from adapterscan.runners import host


def test_a_base_that_does_not_fit_is_refused_with_both_figures() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only where /proc tells")
    with pytest.raises(RunnerProblem, match=r"needs about .* are free"):
        host.require_memory(1 << 60)
    assert host.require_memory(1) > host.ROOM_BYTES


def test_where_memory_cannot_be_told_the_process_has_no_limit(monkeypatch) -> None:
    monkeypatch.setattr(host, "MEMORY", host.Path("/nowhere/meminfo"))
    assert host.require_memory(1 << 60) == 0
