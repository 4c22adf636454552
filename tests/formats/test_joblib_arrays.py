"""Pickles of joblib go on behind the numbers in their middle, for its loader and for no other."""

from pathlib import Path

import pytest

from adapterscan.formats.pickle_facts import pickle_facts
from adapterscan.formats.pickle_file import find_pickles
from adapterscan.formats.reader import SourceFile
from benchmarks.corpora.containers import WRAPPER, numbers
from benchmarks.corpora.pickles import ATTACK, BENIGN, NONE, RUN, STOP, listed, proto, short

HIT = ("pickle.global", "dangerous")


def told(folder: Path, body: bytes) -> list[tuple[str, object]]:
    path = folder / "state.joblib"
    path.write_bytes(proto(4) + body + STOP)
    with SourceFile(path.name, path) as file:
        return [(item.name, item.value) for item in pickle_facts(find_pickles(file), "trainer")]


def test_arrays_are_passed_over(tmp_path: Path) -> None:
    seen = told(tmp_path, listed(WRAPPER + numbers(3), WRAPPER + numbers(0)))
    assert set(seen) == {("pickle.global", "allowed")}


@pytest.mark.parametrize("padding", [0, 1, 15])
def test_a_call_behind_an_array_is_seen(tmp_path: Path, padding: int) -> None:
    assert HIT in told(tmp_path, listed(WRAPPER + numbers(padding), RUN))


def test_a_call_where_another_loader_finds_no_array_is_seen(tmp_path: Path) -> None:
    assert HIT in told(tmp_path, listed(WRAPPER + RUN, NONE * 200))


def test_an_array_that_reaches_past_the_end_is_broken(tmp_path: Path) -> None:
    seen = told(tmp_path, listed(WRAPPER) + b"\x01\xff\xff")
    assert "pickle.broken" in [name for name, _ in seen]


OBJECTS = WRAPPER.replace(b"X\x02\0\0\0f4", b"X\x02\0\0\0O8")


def test_an_array_of_objects_has_a_memo_of_its_own(tmp_path: Path) -> None:
    inner = proto(4) + short("collections") + b"\x94" + short("OrderedDict") + b"\x94\x93)R."
    memoised = short("x") + b"\x94" + short("y") + b"\x94"
    inner = inner.replace(b"\x93", b"00h\0h\x01\x93")
    assert set(told(tmp_path, memoised + listed(OBJECTS + inner, NONE))) == {
        ("pickle.global", "allowed")
    }


@pytest.mark.parametrize("where", ["in", "behind", "plain"])
def test_a_call_by_an_array_of_objects_is_seen(tmp_path: Path, where: str) -> None:
    inner = {"in": ATTACK, "behind": BENIGN, "plain": BENIGN[:-1] + RUN + STOP}[where]
    assert HIT in told(tmp_path, listed(OBJECTS + inner, RUN if where == "behind" else NONE))


@pytest.mark.parametrize("start", [b"\0\xff", b"\0.", b"\0" + NONE * 5000 + STOP])
def test_a_call_behind_a_long_array_is_seen(tmp_path: Path, start: bytes) -> None:
    long = WRAPPER.replace(b"K\x10\x85", b"J" + (100_000).to_bytes(4, "little") + b"\x85")
    numbers = start + bytes(1 + 400_000 - len(start))
    assert HIT in told(tmp_path, listed(long + numbers, RUN))
