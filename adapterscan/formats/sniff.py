"""Tell a file's container by its bytes, never by its name."""

from __future__ import annotations

import re

_MAGIC = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"GGUF", "gguf"),
    (b"\x93NUMPY", "npy"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"ZF0x", "zfile"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"version https://git-lfs.github.com/spec/v1", "lfs-pointer"),
)
#: What a file that no loader reads by itself is looked into for, when it begins like this.
COULD_HIDE_PICKLES = frozenset(
    "pickle zip tar npy gzip bzip2 xz lzma zlib zfile zstd lz4 7z rar".split()
)
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*"
    rb"oid sha256:([0-9a-f]{64})\nsize ([0-9]{1,19})\n?\Z"
)
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_HEAD_OPCODES = 20_000
#: Every opcode that a pickle can begin with (`pickletools.opcodes`): most text begins otherwise.
_OPCODES = frozenset(
    b"IJKM\x8a\x8bFGLNUVSTXBC\x8c\x8d\x8e\x96\x97\x98\x88\x89](}l)at\x85\x86\x87"
    b"d\x80\x94\x95e02sub1cio\x81\x82\x83\x84\x8f\x90\x91\x92\x93PQRghjpqr."
)


def sniff(head: bytes) -> str:
    """Return the container that `head` (the first kilobytes of a file) begins.

    "empty" "zip" "gguf" "npy" "gzip" "bzip2" "xz" "lzma" "7z" "rar" "zstd" "lz4" "hdf5"
    "lfs-pointer" "zfile" (joblib before 0.10) "safetensors" "tar" "pickle" "zlib" "text" or
    "unknown".
    """
    if not head:
        return "empty"
    for magic, container in _MAGIC:
        if head.startswith(magic):
            return container
    if _is_lzma(head):
        return "lzma"
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40:
        return "safetensors"
    if is_tar(head):
        return "tar"
    if _is_pickle(head):
        return "pickle"
    if head.startswith(_ZLIB):
        return "zlib"
    return "text" if _is_text(head) else "unknown"


def is_unsettled(head: bytes) -> bool:
    """Return whether `head` reads as a pickle that has not called anything yet, up to its end.

    Text can: it takes the rest of the file to tell.
    """
    if not head or head[0] not in _OPCODES:
        return False
    from adapterscan.formats.pickle_vm import Limits, disassemble

    defect = disassemble(head, limits=Limits(opcodes=_HEAD_OPCODES)).defect
    return defect is not None and defect.code in ("truncated", "limit")


def parse_lfs_pointer(content: bytes) -> tuple[str, int] | None:
    """Return (sha256, size) of the object that a git-lfs pointer file stands for, or None."""
    match = _POINTER.match(content) if len(content) < 1024 else None
    return (match[1].decode("ascii"), int(match[2])) if match else None


def is_tar(head: bytes) -> bool:
    """Return whether the first 512 bytes are a tar header (by its checksum: v7 has no magic)."""
    block = head[:512]
    if len(block) < 512 or not block[0]:
        return False
    try:
        claimed = int(block[148:156].strip(b" \0") or b"-1", 8)
    except ValueError:
        return False
    return claimed == sum(block[:148]) + 8 * 0x20 + sum(block[156:])


def _is_lzma(head: bytes) -> bool:
    """Return whether `head` begins an .lzma file: usual properties, then a size or "unknown"."""
    size = head[5:13]
    return head.startswith(b"]\0\0") and (size == b"\xff" * 8 or size[5:] == bytes(3))


def _is_pickle(head: bytes) -> bool:
    if head[0] == 0x80 and len(head) > 1 and head[1] <= 5:
        return True
    if head[0] not in _OPCODES:
        return False
    from adapterscan.formats.pickle_vm import Limits, disassemble  # when wanted: 16 ms

    found = disassemble(head, limits=Limits(opcodes=_HEAD_OPCODES))
    if found.complete:
        return found.opcodes > 1 and found.defect is None
    whole_head = found.defect is not None and found.defect.code in ("truncated", "limit")
    return whole_head and any(item.called for item in found.globals)


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return len(head) - error.start < 4  # a character cut in half by the end of the head
    return True
