"""Opcodes to write hostile pickles with, one piece each. Nothing here is ever unpickled."""

from __future__ import annotations

import struct

STOP = b"."
NONE = b"N"
COMMAND = "echo inert"


def proto(version: int) -> bytes:
    """Return the header of protocol 2 and up; older ones have none."""
    return b"\x80" + bytes([version]) if version >= 2 else b""


def framed(body: bytes) -> bytes:
    """Return `body` as protocol 4 frames it."""
    return b"\x95" + struct.pack("<Q", len(body)) + body


def text(value: str) -> bytes:
    """Return BINUNICODE."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def short(value: str) -> bytes:
    """Return SHORT_BINUNICODE."""
    raw = value.encode()
    return b"\x8c" + bytes([len(raw)]) + raw


def named(module: str, name: str) -> bytes:
    """Return GLOBAL."""
    return f"c{module}\n{name}\n".encode()


def stacked(module: str, name: str) -> bytes:
    """Return STACK_GLOBAL with its two texts."""
    return short(module) + short(name) + b"\x93"


def call(function: bytes, *arguments: bytes) -> bytes:
    """Return REDUCE of `function` with `arguments`."""
    return function + b"(" + b"".join(arguments) + b"tR"


def listed(*items: bytes) -> bytes:
    """Return a list."""
    return b"](" + b"".join(items) + b"e"


def pairs(*items: bytes) -> bytes:
    """Return a dict of alternating keys and values."""
    return b"}(" + b"".join(items) + b"u"


SYSTEM = named("posix", "system")
RUN = call(SYSTEM, text(COMMAND))  # would print one word
ATTACK = proto(2) + RUN + STOP
BENIGN = proto(2) + pairs(text("loss"), b"G?\xe0\0\0\0\0\0\0") + STOP
ORDERED = call(named("collections", "OrderedDict"))


def tensors(*, before: bytes = b"", extra: bytes = b"", version: int = 2) -> bytes:
    """Return the `data.pkl` of an adapter with one pair of factors.

    `before` is run first and thrown away, `extra` is a value beside the tensors.
    """
    entries = b"".join(
        text(f"base_model.model.model.layers.0.self_attn.q_proj.lora_{part}.weight")
        + tensor(str(key), *shape)
        for key, (part, shape) in enumerate((("A", (4, 16)), ("B", (16, 4))))
    )
    more = text("extra") + extra if extra else b""
    return (
        proto(version) + (before + b"0" if before else b"") + b"}(" + entries + more + b"u" + STOP
    )


def tensor(key: str, rows: int, columns: int) -> bytes:
    """Return a float32 matrix in the storage `key`."""
    count = b"M" + struct.pack("<H", rows * columns)
    claim = b"(" + text("storage") + named("torch", "FloatStorage") + text(key) + text("cpu")
    shape = b"K" + bytes([rows]) + b"K" + bytes([columns]) + b"\x86"
    strides = b"K" + bytes([columns]) + b"K\x01\x86"
    body = claim + count + b"tQK\0" + shape + strides + b"\x89" + ORDERED
    return named("torch._utils", "_rebuild_tensor_v2") + b"(" + body + b"tR"


STORAGES = {"0": b"\0\0\x80?" * 64, "1": bytes(256)}
