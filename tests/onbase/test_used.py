"""What is said of a base: only once values were read of it."""

from __future__ import annotations

import numpy as np
import pytest

from adapterscan.errors import Unsupported
from adapterscan.model import Skipped
from adapterscan.onbase.base import BaseTensor
from adapterscan.onbase.used import Used

NOTE = Skipped("the base", "stores them rounded", failed=False)


class Noted:
    """A base of one tensor that has something to be said of it."""

    def __init__(self):
        self.name, self.tied = "noted", False
        self.tensors = {"a.weight": BaseTensor("a.weight", "Q8_0", (2, 2))}

    def rows(self, name, start, stop):
        if name not in self.tensors:
            raise Unsupported(name, "is not there")
        return np.ones((stop - start, 2))

    def leading(self, name):
        return None

    def directions(self):
        return None

    def notes(self):
        return [NOTE]


def test_a_base_that_was_only_opened_has_no_notes() -> None:
    base = Used(Noted())
    assert base.tensors
    assert base.leading("a.weight") is None
    assert list(base.notes()) == []


def test_a_base_that_could_not_be_read_has_no_notes() -> None:
    base = Used(Noted())
    with pytest.raises(Unsupported):
        base.rows("b.weight", 0, 2)
    assert list(base.notes()) == []


def test_a_base_that_was_read_has_its_notes() -> None:
    base = Used(Noted())
    base.rows("a.weight", 0, 2)
    assert list(base.notes()) == [NOTE]
