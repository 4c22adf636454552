"""Attacks with something behind them: an unpickler has run them when it stumbles over the rest."""

from __future__ import annotations

import random
from collections.abc import Iterator

from benchmarks.corpora.archives import NOTE, legacy, torch_zip, zipped
from benchmarks.corpora.pickles import ATTACK, BENIGN, RUN, STOP, named, proto, tensors
from benchmarks.corpora.sample import Sample


def samples() -> Iterator[Sample]:
    """Yield attacks that are followed by garbage, by a break, or by nothing where more belongs."""
    for name, (file, data) in _followed().items():
        yield Sample("followed", name, file, data)


def _followed() -> dict[str, tuple[str, bytes]]:
    noise = random.Random(7).randbytes(5000)
    tails = {
        "one byte": b"\xff", "64 bytes of 0xff": b"\xff" * 64, "random bytes": noise,
        "zeros": bytes(5000), "text": NOTE * 20, "a cut opcode": b"X\xff\xff\xff\x7f",
        "a cut pickle": proto(4) + b"\x95\xff", "a broken opcode after PROTO": proto(2) + b"\xff",
        "a benign pickle": BENIGN, "a zip": zipped({"a.txt": NOTE}), "a megabyte": noise * 210,
        "a PNG": b"\x89PNG\r\n\x1a\n" + noise,
    }  # fmt: skip
    files: dict[str, tuple[str, bytes]] = {
        f"attack, then {name}": ("file.pkl", ATTACK + tail) for name, tail in tails.items()
    }
    body = ATTACK[:-1]
    cuts = {
        "no STOP": b"", "cut in a text": b"X\x10\0\0\0abc", "unknown opcode": b"\xff\xfe",
        "pop from an empty stack": b"000000.", "mark that is not there": b"t.",
        "memo that is not there": b"h\x77.", "a cut number": b"J\x01",
        "an unimportable name": named("no_such_module_here", "x") + STOP,
        "a STACK_GLOBAL of numbers": b"K\x01K\x02\x93.", "an odd dict": b"(K\x01d.",
        "BUILD on nothing": b"0b.", "a frame in a frame": b"\x95\x05" + bytes(7) + b"\x95.",
        "a string without quotes": b"Sabc\n.", "bad UTF-8": b"X\x02\0\0\0\xff\xfe.",
        "a bad extension": b"\x82\0.", "an INT that is none": b"Iabc\n.",
    }  # fmt: skip
    files |= {f"attack, then {name}": ("file.pkl", body + tail) for name, tail in cuts.items()}
    whole = torch_zip(tensors(before=RUN))
    files |= {
        "torch zip, attack then a break": ("adapter_model.bin", torch_zip(body + b"\xff")),
        "torch zip, cut in half": ("adapter_model.bin", whole[: len(whole) // 2]),
        "torch zip, cut by a byte": ("adapter_model.bin", whole[:-1]),
        "torch zip, then zeros": ("adapter_model.bin", whole + bytes(1000)),
        "legacy, attack then a break": ("adapter_model.bin", legacy(body + b"\xff")),
    }
    return files
