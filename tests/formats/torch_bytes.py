"""Write pickles and torch files by hand, opcode by opcode: inert bytes that nothing here loads."""

import io
import struct
import zipfile
from collections.abc import Mapping

PROTO = b"\x80\x02"
STOP = b"."
EXEC = b"cposix\nsystem\n(X\x04\x00\x00\x00truetR"  # would run `true`, were it ever loaded
LEGACY_MAGIC = PROTO + b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19" + STOP


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(16, "little", signed=True)
    return b"\x8a\x10" + raw


def integers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def storage(key: str, kind: str, numel: int, *, legacy: bool = False) -> bytes:
    module, _, name = kind.rpartition(".")
    tail = b"N" if legacy else b""
    claim = f"c{module}\n{name}\n".encode()
    return b"(" + text("storage") + claim + text(key) + text("cpu") + integer(numel) + tail + b"tQ"


def tensor(
    claim: bytes, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0
) -> bytes:
    hooks = b"\x89ccollections\nOrderedDict\n)R"
    body = claim + integer(offset) + integers(shape) + integers(strides) + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + body + b"tR"


def mapping(entries: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def pickle(value: bytes) -> bytes:
    return PROTO + value + STOP


def torch_zip(
    value: bytes,
    storages: Mapping[str, bytes],
    *,
    byteorder: bytes = b"little",
    packed: bool = False,
) -> bytes:
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("archive/data.pkl", pickle(value))
        archive.writestr("archive/byteorder", byteorder)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", b"3\n")
    return buffer.getvalue()


def torch_legacy(value: bytes, storages: Mapping[str, tuple[int, bytes]]) -> bytes:
    system = pickle(mapping({"protocol_version": integer(1001), "little_endian": b"\x88"}))
    keys = pickle(b"](" + b"".join(map(text, storages)) + b"e")
    raw = b"".join(struct.pack("<q", count) + data for count, data in storages.values())
    return LEGACY_MAGIC + pickle(integer(1001)) + system + pickle(value) + keys + raw
