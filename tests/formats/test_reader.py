"""The one-pass reader: digests, borders, and files that change under it."""

import hashlib
import os

import pytest

from adapterscan.errors import ChangedWhileReading, Unreadable
from adapterscan.formats.reader import SEGMENT_BYTES, SourceFile


@pytest.fixture
def opened(tmp_path):
    def of(data, **options):
        path = tmp_path / "x.bin"
        path.write_bytes(data)
        return SourceFile("x.bin", path, **options), path

    return of


def finish(file):
    return b"".join(bytes(view) for _, view in file.segments([]))


@pytest.mark.parametrize("size", [0, 1, 1000, SEGMENT_BYTES + 3])
def test_the_digests_are_those_of_hashlib_and_git(opened, size):
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    file, _ = opened(data, git_sha1=True)
    with file:
        assert finish(file) == data
    assert file.sha256 == hashlib.sha256(data).hexdigest()
    assert file.git_sha1 == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def test_a_segment_ends_only_where_a_cut_allows_it(opened):
    cuts = [10, SEGMENT_BYTES - 1, SEGMENT_BYTES + 5, 2 * SEGMENT_BYTES]
    file, _ = opened(bytes(3 * SEGMENT_BYTES))
    with file:
        found = [(start, len(view)) for start, view in file.segments(cuts)]
    assert {start for start, _ in found} <= {0, *cuts}
    assert sum(length for _, length in found) == 3 * SEGMENT_BYTES


def overwrite(path, data):
    with path.open("r+b") as other:
        other.write(data)


def read_while(file, change):
    """Pass over the file, doing `change` after its first segment."""
    for start, _ in file.segments([SEGMENT_BYTES]):
        if not start:
            change()


@pytest.mark.parametrize("change", [b"y", b"z" * 100])
def test_a_byte_that_differs_from_an_earlier_read_is_noticed(opened, change):
    file, path = opened(b"x" * 100)
    with file:
        file.read(0, 10)
        overwrite(path, change)
        with pytest.raises(ChangedWhileReading):
            finish(file)


@pytest.mark.parametrize("size", [2 * SEGMENT_BYTES + 1, SEGMENT_BYTES, 5])
def test_a_file_that_grows_or_shrinks_during_the_pass_is_noticed(opened, size):
    file, path = opened(bytes(2 * SEGMENT_BYTES))
    with file, pytest.raises(ChangedWhileReading):
        read_while(file, lambda: os.truncate(path, size))


def test_bytes_that_were_replaced_by_as_many_others_are_noticed(opened):
    file, path = opened(bytes(2 * SEGMENT_BYTES))
    with file, pytest.raises(ChangedWhileReading):
        read_while(file, lambda: overwrite(path, b"new"))
    assert file.sha256 is None


def test_a_second_look_must_have_the_digest_of_the_first(opened):
    file, path = opened(b"x" * 100)
    digest = hashlib.blake2b(b"x" * 10).digest()
    with file:
        assert file.reread(5, 10, digest) == b"x" * 10
        overwrite(path, b"y" * 10)
        with pytest.raises(ChangedWhileReading):
            file.reread(5, 10, digest)


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Unreadable, match="not a regular file"):
        SourceFile("pipe", tmp_path / "pipe")


def test_a_missing_file_is_unreadable_with_a_next_step(tmp_path):
    with pytest.raises(Unreadable) as caught:
        SourceFile("gone", tmp_path / "gone")
    assert caught.value.hint
