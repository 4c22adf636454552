"""Archives as their own programs write them, the same bytes each time."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Mapping

from benchmarks.corpora.pickles import STOP, STORAGES, listed, proto, text

#: The first pickle of torch's format before 1.6.
MAGIC = proto(2) + b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19" + STOP
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
NOTE = b"A harmless note.\n"


def zipped(members: Mapping[str, bytes], method: int = STORED, comment: bytes = b"") -> bytes:
    """Return an honest zip of `members`, the same bytes each time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = comment
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def torch_zip(pickled: bytes, more: Mapping[str, bytes] | None = None, name: str = "data.pkl",
              root: str = "adapter_model", method: int = STORED) -> bytes:  # fmt: skip
    """Return what torch.save writes, with `pickled` as its object."""
    storages = {f"{root}/data/{key}": data for key, data in STORAGES.items()}
    members = {f"{root}/{name}": pickled, f"{root}/byteorder": b"little", **storages}
    return zipped({**members, f"{root}/version": b"3\n", **(more or {})}, method)


def tarred(members: Mapping[str, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """Return an honest tar of `members`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def array(descr: str, data: bytes, version: int = 1) -> bytes:
    """Return an .npy file with `data` behind a header that says `descr`."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': (1,), }}\n".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


def legacy(pickled: bytes, *, first: bytes = MAGIC, protocol: bytes = proto(2) + b"M\xe9\x03.",
           system: bytes = proto(2) + b"}.", keys: bytes | None = None) -> bytes:  # fmt: skip
    """Return torch's format before 1.6: five pickles, then the storages."""
    keys = keys or proto(2) + listed(text("0"), text("1")) + STOP
    raw = b"".join(struct.pack("<q", len(data) // 4) + data for data in STORAGES.values())
    return first + protocol + system + pickled + keys + raw
