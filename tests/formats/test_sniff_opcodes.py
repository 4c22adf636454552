"""The quick look at a file's first byte lets every opcode of a pickle through."""

import pickletools

from adapterscan.formats.sniff import _OPCODES


def test_every_opcode_of_a_pickle_is_looked_into():
    assert {ord(opcode.code) for opcode in pickletools.opcodes} == _OPCODES
