"""Every way in which opcodes lead to a call, and every way to spell the name of what is called."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Iterator

from benchmarks.corpora.pickles import (
    ATTACK,
    BENIGN,
    COMMAND,
    NONE,
    RUN,
    STOP,
    SYSTEM,
    call,
    framed,
    listed,
    named,
    pairs,
    proto,
    short,
    stacked,
    text,
)  # fmt: skip
from benchmarks.corpora.sample import Sample, Truth

_NAMESPACE = named("argparse", "Namespace") + b")\x81"


class _Payload:
    """What the standard library is asked to write; its call is never made here."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (COMMAND,)


def samples() -> Iterator[Sample]:
    """Yield one pickle for each route."""
    for version in range(6):
        data = pickle.dumps({"weights": _Payload()}, protocol=version)
        yield Sample("routes", f"written by pickle, protocol {version}", "file.pkl", data)
    for name, body in (_CALLS | _NAMES | _SPELLINGS).items():
        yield Sample("routes", name, "file.pkl", body)
    for name, (body, why) in _NOTHING_RUNS.items():
        truth: Truth = "inert"
        yield Sample("routes", name, "file.pkl", body, truth, why)


def _p(body: bytes, version: int = 2) -> bytes:
    return proto(version) + body + STOP


_ARGS = text(COMMAND)
_CALLS = {
    "REDUCE": _p(RUN),
    "REDUCE with TUPLE1": _p(SYSTEM + _ARGS + b"\x85R"),
    "REDUCE, result thrown away": _p(RUN + b"0" + NONE),
    "REDUCE, result in the memo only": _p(RUN + b"q\x07" + b"0" + NONE),
    "REDUCE of a memoised global": _p(SYSTEM + b"q\x010" + b"h\x01" + _ARGS + b"\x85R"),
    "REDUCE of a duplicated global": _p(SYSTEM + b"2" + _ARGS + b"\x85R"),
    "REDUCE with memoised arguments": _p(_ARGS + b"\x85q\x050" + SYSTEM + b"h\x05R"),
    "REDUCE deep in a dict": _p(pairs(text("a"), listed(pairs(text("b"), RUN)))),
    "REDUCE as a key": _p(pairs(RUN, NONE)),
    "REDUCE in a set": _p(b"\x8f(" + RUN + b"\x90", 4),
    "REDUCE in a frozenset": _p(b"(" + RUN + b"\x91", 4),
    "REDUCE below a mark that is popped": _p(b"(" + RUN + b"1" + NONE),
    "INST": _p(b"(" + _ARGS + b"iposix\nsystem\n"),
    "INST, protocol 0": b"(S'echo inert'\niposix\nsystem\n.",
    "OBJ": _p(b"(" + SYSTEM + _ARGS + b"o"),
    "NEWOBJ": _p(SYSTEM + _ARGS + b"\x85\x81"),
    "NEWOBJ_EX": _p(SYSTEM + _ARGS + b"\x85}\x92", 4),
    "BUILD with a __setstate__ that was set": _p(
        _NAMESPACE + pairs(text("__setstate__"), SYSTEM) + b"b" + _ARGS + b"b"
    ),
    "APPEND on an object whose append was set": _p(
        _NAMESPACE + pairs(text("append"), SYSTEM) + b"b" + _ARGS + b"a"
    ),
    "APPENDS on an object whose extend was set": _p(
        _NAMESPACE + pairs(text("extend"), SYSTEM) + b"b(" + _ARGS + b"e"
    ),
    "ADDITEMS on an object whose add was set": _p(
        _NAMESPACE + pairs(text("add"), SYSTEM) + b"b(" + _ARGS + b"\x90", 4
    ),
    "BUILD on a class": _p(named("torch", "Tensor") + pairs(text("__reduce__"), SYSTEM) + b"b"),
    "BUILD with slots that change the class": _p(
        _NAMESPACE + b"(" + NONE + pairs(text("__class__"), named("code", "InteractiveConsole"))
        + b"tb"
    ),
    "SETITEM on os.environ": _p(named("os", "environ") + text("PATH") + text(".") + b"s"),
    "APPEND on sys.path": _p(named("sys", "path") + text("/tmp") + b"a"),  # noqa: S108
    "PERSID, then a call": _p(b"Pstorage 0\n0" + RUN),
    "BINPERSID of a call": _p(RUN + b"Q"),
    "BINPERSID with a call in the tuple": _p(b"(" + text("storage") + RUN + b"tQ"),
    "EXT1": _p(b"\x82\x07" + _ARGS + b"\x85R"),
    "EXT2": _p(b"\x83\x07\x01" + _ARGS + b"\x85R"),
    "EXT4": _p(b"\x84\x07\x01\0\0" + _ARGS + b"\x85R"),
    "copyreg.add_extension, then EXT1": _p(
        call(named("copyreg", "add_extension"), text("os"), text("system"), b"K\x07") + b"0"
        + b"\x82\x07" + _ARGS + b"\x85R"
    ),
    "call of the result of a call": _p(
        call(call(named("functools", "partial"), SYSTEM), _ARGS)
    ),
    "copyreg._reconstructor": _p(
        call(named("copyreg", "_reconstructor"), named("posix", "system"), SYSTEM, _ARGS)
    ),
    "copyreg.__newobj__": _p(call(named("copyreg", "__newobj__"), SYSTEM, _ARGS)),
    "handed to _rebuild_from_type_v2": _p(
        call(named("torch._tensor", "_rebuild_from_type_v2"), SYSTEM, named("torch", "Tensor"),
             _ARGS + b"\x85", NONE)
    ),
    "handed to defaultdict": _p(call(named("collections", "defaultdict"), SYSTEM)),
    "handed to map": _p(call(named("builtins", "map"), SYSTEM, listed(_ARGS))),
}  # fmt: skip
_NAMES = {
    "GLOBAL": _p(RUN),
    "GLOBAL, no protocol": RUN + STOP,
    "GLOBAL as Python 2 spells it": _p(call(named("__builtin__", "eval"), text("1"))),
    "GLOBAL with a dotted name": _p(call(named("torch", "os.system"), _ARGS), 4),
    "GLOBAL through sys.modules": _p(
        call(named("sys", "modules.get"), text("os")), 4
    ),
    "STACK_GLOBAL": _p(stacked("posix", "system") + _ARGS + b"\x85R", 4),
    "STACK_GLOBAL in a frame": proto(4) + framed(stacked("posix", "system") + _ARGS + b"\x85R."),
    "STACK_GLOBAL with MEMOIZE": _p(
        short("posix") + b"\x94" + short("system") + b"\x94\x93\x94" + _ARGS + b"\x85R", 4
    ),
    "STACK_GLOBAL from BINGET": _p(
        short("posix") + b"q\x63" + short("system") + b"q\x620" + b"0h\x63h\x62\x93" + _ARGS
        + b"\x85R", 4
    ),
    "STACK_GLOBAL from LONG_BINGET": _p(
        short("posix") + b"r\0\0\0\x10" + short("system") + b"r\x01\0\0\x100" + b"0j\0\0\0\x10"
        + b"j\x01\0\0\x10\x93" + _ARGS + b"\x85R", 4
    ),
    "STACK_GLOBAL from GET": _p(
        short("posix") + b"p9\n" + short("system") + b"p8\n0" + b"0g9\ng8\n\x93" + _ARGS
        + b"\x85R", 4
    ),
    "STACK_GLOBAL, memo overwritten": _p(
        short("torch") + b"q\x01" + short("posix") + b"q\x01" + short("system") + b"q\x02"
        + b"000h\x01h\x02\x93" + _ARGS + b"\x85R", 4
    ),
    "STACK_GLOBAL, MEMOIZE after a gap": _p(
        short("x") + b"q\x05" + short("posix") + b"\x94" + short("system") + b"\x94"
        + b"000h\x01h\x02\x93" + _ARGS + b"\x85R", 4
    ),
    "STACK_GLOBAL, decoys between": _p(
        short("posix") + short("torch") + b"0" + short("system") + short("Tensor") + b"0\x93"
        + _ARGS + b"\x85R", 4
    ),
    "STACK_GLOBAL with DUP": _p(short("code") + b"2\x93" + _ARGS + b"\x85R", 4),
    "STACK_GLOBAL from a popped mark": _p(
        short("posix") + b"(" + short("torch") + b"1" + short("system") + b"\x93" + _ARGS
        + b"\x85R", 4
    ),
    "STACK_GLOBAL from STRING": _p(b"S'posix'\nS'system'\n\x93" + _ARGS + b"\x85R", 4),
    "STACK_GLOBAL from escaped STRING": _p(
        b"S'po\\x73ix'\nS'sys\\164em'\n\x93" + _ARGS + b"\x85R", 4
    ),
    "STACK_GLOBAL from UNICODE": _p(
        b"V\\u0070osix\nVs\\u0079stem\n\x93" + _ARGS + b"\x85R", 4
    ),
    "STACK_GLOBAL from BINSTRING": _p(
        b"T\x05\0\0\0posixU\x06system\x93" + _ARGS + b"\x85R", 4
    ),
    "STACK_GLOBAL from BINUNICODE8": _p(
        b"\x8d\x05" + bytes(7) + b"posix\x8d\x06" + bytes(7) + b"system\x93" + _ARGS + b"\x85R", 4
    ),
    "STACK_GLOBAL, name from a call": _p(
        short("posix") + call(named("_codecs", "encode"), text("system")) + b"\x93" + _ARGS
        + b"\x85R", 4
    ),
    "STACK_GLOBAL, name from a list": _p(
        short("posix") + listed(text("system")) + b"\x93" + _ARGS + b"\x85R", 4
    ),
    "INST after a comment-like module": _p(b"(" + _ARGS + b"iposix\nsystem\n", 1),
}  # fmt: skip
_SPELLINGS = {
    "INT that pickletools refuses, then the call": _p(b"I0x1\n0" + RUN),
    "LONG that pickletools refuses, then the call": _p(b"L1_0L\n0" + RUN),
    "STRING with high escapes, then the call": _p(b"S'\\xff\\xfe'\n0" + RUN),
    "PROTO repeated between opcodes": _p(proto(2) + SYSTEM + proto(4) + _ARGS + b"\x85" + b"R"),
    "frame shorter than its content": proto(4) + b"\x95" + struct.pack("<Q", 3) + RUN + STOP,
    "frame longer than the file": proto(4) + b"\x95" + struct.pack("<Q", 1 << 20) + RUN + STOP,
    "frames of zero bytes": proto(4) + (b"\x95" + bytes(8)) * 50 + RUN + STOP,
    "nested frames": proto(4) + framed(framed(RUN) + STOP),
    "memo index of 4 billion": _p(b"Nr\xff\xff\xff\xff0" + RUN),
    "two million opcodes first": proto(2) + b"N0" * 900_000 + RUN + STOP,
    "five million opcodes first": proto(2) + b"N0" * 2_500_000 + RUN + STOP,
    "20 MiB of bytes first": proto(4)
    + b"\x8e"
    + struct.pack("<Q", 20 << 20)
    + bytes(20 << 20)
    + b"0"
    + RUN
    + STOP,
    "ten thousand marks first": _p(b"(" * 9_000 + RUN),
    "a megabyte of text first": _p(text("A" * (1 << 20)) + b"0" + RUN),
    "a thousand harmless names first": _p(
        b"".join(named("torch", f"float{index}") + b"0" for index in range(1000)) + RUN
    ),
    "BYTEARRAY8 and buffers first": _p(b"\x96" + struct.pack("<Q", 4) + b"data0\x970" + RUN, 5),
    "pickle 1 memoises, pickle 2 calls": _p(SYSTEM + b"q\x01") + _p(b"h\x01" + _ARGS + b"\x85R"),
    "a benign pickle first": BENIGN + ATTACK,
    "fifty benign pickles first": BENIGN * 50 + ATTACK,
    "two thousand benign pickles first": BENIGN * 2000 + ATTACK,
    "STOP alone, then a pickle": proto(2) + NONE + STOP + ATTACK,
    "attack, then a benign pickle": ATTACK + BENIGN,
}
_NOTHING_RUNS = {
    "protocol 6": (b"\x80\x06" + RUN + STOP, "every unpickler refuses the protocol first"),
    "protocol 255": (b"\x80\xff" + RUN + STOP, "every unpickler refuses the protocol first"),
    "a pickle as a byte string": (
        _p(b"B" + struct.pack("<I", len(ATTACK)) + ATTACK), "no loader unpickles the bytes"
    ),
    "the name as texts only": (
        _p(listed(text("os"), text("system"), text(COMMAND))), "texts are not looked up"
    ),
    "behind a break": (
        _p(b"\xff" + RUN), "every unpickler stops at the opcode that there is not"
    ),
}  # fmt: skip
