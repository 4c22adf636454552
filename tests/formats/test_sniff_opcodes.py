"""The quick look at a file's first byte lets every opcode of a pickle through."""

import pickletools

import pytest

from adapterscan.formats.sniff import _OPCODES, is_unsettled, sniff


def test_every_opcode_of_a_pickle_is_looked_into():
    assert {ord(opcode.code) for opcode in pickletools.opcodes} == _OPCODES


@pytest.mark.parametrize("head", [b"I1\n0" * 256, b"V" + b"a" * 1023])
def test_a_pickle_that_begins_slowly_is_left_open(head):
    assert sniff(head) in ("text", "unknown")
    assert is_unsettled(head)


@pytest.mark.parametrize("head", [b"", b"# Title\n", b'{"a": 1}', b"a list of words\n" * 60])
def test_plain_text_is_settled(head):
    assert not is_unsettled(head)
