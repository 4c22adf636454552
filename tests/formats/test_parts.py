"""A file of which only parts are here: what is asked for, what is kept, what is refused."""

import pytest

from adapterscan.errors import Unreadable
from adapterscan.formats.parts import JOINED_GAP, PartialFile

DATA = bytes(range(256)) * 4096


@pytest.fixture
def asked():
    return []


@pytest.fixture
def far(asked):
    def bring(spans):
        asked.append(list(spans))
        return [DATA[start:end] for start, end in spans]

    return PartialFile("x.pt", len(DATA), bring)


def refused(spans):
    raise Unreadable("x.pt", f"{spans}")


def test_a_read_is_that_of_a_whole_file(far):
    for start, length in [(0, 10), (5, 20), (len(DATA) - 3, 10), (len(DATA), 4), (90, 0), (3, 300)]:
        assert far.read(start, length) == DATA[start : start + length]


def test_what_is_here_is_not_asked_for_again(far, asked):
    far.read(100, 50)
    far.read(100, 50)
    far.read(90, 80)
    assert asked == [[(100, 150)], [(90, 100), (150, 170)]]
    assert far.held == 80


def test_expected_ranges_are_brought_at_once_and_joined_over_small_gaps(far, asked):
    far.expect([(500_000, 10), (0, 10), (20, 10), (500_000 + JOINED_GAP, 5), (2_000_000, 9)])
    assert asked == [[(0, 30), (500_000, 500_005 + JOINED_GAP)]]
    assert far.read(500_004, 3) == DATA[500_004:500_007]
    assert len(asked) == 1


def test_expecting_nothing_asks_for_nothing(far, asked):
    far.expect([])
    far.expect([(10, 0), (-5, 2)])
    assert asked == []


def test_parts_give_back_what_was_read_and_refuse_the_rest(far):
    far.expect([(0, 100), (200_000, 50)])
    far.read(100, 5)
    again = PartialFile("x.pt", len(DATA), refused, far.parts)
    assert again.read(0, 105) == DATA[:105]
    assert again.read(200_010, 40) == DATA[200_010:200_050]
    with pytest.raises(Unreadable):
        again.read(104, 2)
