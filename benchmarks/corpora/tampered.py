"""ZIP archives that say one thing to one reader and another to the next; an attack is in each."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator

from benchmarks.corpora.archives import DEFLATED, torch_zip, zipped
from benchmarks.corpora.pickles import ATTACK, BENIGN, RUN, tensors
from benchmarks.corpora.sample import Sample


def samples() -> Iterator[Sample]:
    """Yield adapters whose archive was changed after it was written."""
    for name, data in _zips(tensors(before=RUN)).items():
        yield Sample("zip", name, "adapter_model.bin", data)
    for name, (data, why) in _unread(torch_zip(tensors(before=RUN))).items():
        yield Sample("inert", f"zip, {name}", "adapter_model.bin", data, "inert", why)


def _zips(adapter: bytes) -> dict[str, bytes]:
    whole, root = torch_zip(adapter), "adapter_model"
    big = zipped({"adapter_model/data.pkl": adapter, "adapter_model/version": b"3\n"})
    renamed = ("notes.txt", "data.pkl.bak", "weights.json", "DATA.PKL", "data/0", "data.pkl/",
               "version", ".data.pkl", "data.PKL.gz", "a/b/c/d/e/f", "code/x.py", "data\u202elkp",
               "../data.pkl", "/data.pkl", "C:\\data.pkl", "constants.pkl")  # fmt: skip
    flags = {"encrypted": 0x1, "strong encryption": 0x41, "patched": 0x20, "streamed": 0x8,
             "UTF-8": 0x800, "headers masked": 0x2000}  # fmt: skip
    return {
        **{f"the pickle is called {name!r}": torch_zip(tensors(), {f"{root}/{name}": adapter})
           for name in renamed},
        **{f"flag: {name}": _flagged(whole, bit) for name, bit in flags.items()},
        **{f"flag: {name}, local header only": _flagged(whole, bit, central=False)
           for name, bit in flags.items()},
        "deflated": torch_zip(adapter, method=DEFLATED),
        "bzip2 member": torch_zip(adapter, method=zipfile.ZIP_BZIP2),
        "lzma member": torch_zip(adapter, method=zipfile.ZIP_LZMA),
        "bad CRC": _patched(whole, crc=0x12345678),
        "bad CRC, local header only": _patched(whole, crc=0x12345678, central=False),
        "CRC of zero": _patched(whole, crc=0),
        "says deflated, is stored": _patched(whole, method=8),
        "says method 99": _patched(whole, method=99),
        "local header says method 99": _patched(whole, method=99, central=False),
        "size of 4 GB": _patched(whole, size=0xFFFFFFF0),
        "local sizes of zero": _patched(whole, size=0, central=False),
        "another name in the local header": whole.replace(b"/data.pkl", b"/data.txt", 1),
        "another name in the directory": _last(whole, b"/data.pkl", b"/data.txt"),
        "no directory": whole[: whole.index(b"PK\x01\x02")],
        "directory cut": whole[: whole.index(b"PK\x01\x02") + 60],
        "directory without the pickle": _unlisted(whole),
        "end record without its magic": whole.replace(b"PK\x05\x06", b"PK\x05\x07"),
        "zip64": _zip64(big),
        "prefix of 7 bytes": b"#!/bin\n" + whole,
        "prefix of 100 kB": bytes(100_000) + whole,
        "suffix of 70 kB": whole + bytes(70_000),
        "comment of 60 kB": zipped({"adapter_model/data.pkl": adapter}, comment=b"x" * 60_000),
        "two members of one name, attack first": _twins(adapter, tensors()),
        "two members of one name, attack last": _twins(tensors(), adapter),
        "names that differ in case": torch_zip(tensors(), {"adapter_model/DATA.pkl": adapter}),
        "two archives, attack first": whole + torch_zip(tensors()),
        "two archives, attack last": torch_zip(tensors()) + whole,
        "3,000 members first": zipped(
            {**{f"a/data/{n}": b"" for n in range(3000)}, "a/data.pkl": adapter}
        ),
        "a storage is the pickle": torch_zip(tensors(), {"adapter_model/data/2": ATTACK}),
        "a storage ends in the pickle": torch_zip(
            tensors(), {"adapter_model/data/3": BENIGN + ATTACK}
        ),
    }  # fmt: skip


def _unread(whole: bytes) -> dict[str, tuple[bytes, str]]:
    packed = torch_zip(tensors(before=RUN), method=DEFLATED)
    empty = zipped({"a/data.pkl": tensors(before=RUN)}, comment=b"PK\x05\x06" + bytes(18))
    return {
        "says stored, is deflated": (_patched(packed, method=0), "no reader inflates it"),
        "size of zero": (_patched(whole, size=0), "readers take it for empty"),
        "comment that holds an end record": (empty, "zipfile and torch see an empty archive"),
    }


def _each(data: bytes, magic: bytes, at: int) -> Iterator[int]:
    """Yield where the field `at` of each header with `magic` whose member is the pickle stands."""
    found = data.find(magic)
    name_at = 30 if magic == b"PK\x03\x04" else 46
    while found >= 0:
        if data[found + name_at :].split(b"/", 1)[-1].startswith(b"data.pkl"):
            yield found + at
        found = data.find(magic, found + 4)


def _flagged(data: bytes, bit: int, *, central: bool = True) -> bytes:
    patched = bytearray(data)
    places = [*_each(data, b"PK\x03\x04", 6), *(_each(data, b"PK\x01\x02", 8) if central else ())]
    for at in places:
        flags = int.from_bytes(patched[at : at + 2], "little") | bit
        patched[at : at + 2] = struct.pack("<H", flags)
    return bytes(patched)


def _patched(data: bytes, *, central: bool = True, **fields: int) -> bytes:
    """Return `data` with fields of the pickle's headers set: method, crc, size (both sizes)."""
    places = {"method": ((8, 10, "<H"),), "crc": ((14, 16, "<L"),),
              "size": ((18, 20, "<L"), (22, 24, "<L"))}  # fmt: skip
    patched = bytearray(data)
    for field, value in fields.items():
        for local, listed_at, layout in places[field]:
            wanted = [*_each(data, b"PK\x03\x04", local)]
            wanted += [*_each(data, b"PK\x01\x02", listed_at)] if central else []
            for at in wanted:
                struct.pack_into(layout, patched, at, value)
    return bytes(patched)


def _last(data: bytes, old: bytes, new: bytes) -> bytes:
    at = data.rindex(old)
    return data[:at] + new + data[at + len(old) :]


def _unlisted(data: bytes) -> bytes:
    """Return `data` with the pickle's entry taken out of the directory."""
    (at,) = _each(data, b"PK\x01\x02", 0)
    sizes = struct.unpack_from("<3H", data, at + 28)
    cut = 46 + sum(sizes)
    out = bytearray(data[:at] + data[at + cut :])
    end = out.rindex(b"PK\x05\x06")
    here, total, size = struct.unpack_from("<2HL", out, end + 8)
    struct.pack_into("<2HL", out, end + 8, here - 1, total - 1, size - cut)
    return bytes(out)


def _zip64(data: bytes) -> bytes:
    """Return `data` with its directory named by zip64 records only."""
    end = data.rindex(b"PK\x05\x06")
    count, size, offset = struct.unpack_from("<HLL", data, end + 10)
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    last = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    return data[:end] + record + locator + last


def _twins(first: bytes, second: bytes) -> bytes:
    twice = zipped({"a/data.pkl": first, "a/data.pkX": second})
    return twice.replace(b"data.pkX", b"data.pkl")
