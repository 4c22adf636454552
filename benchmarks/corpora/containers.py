"""The same attack in every container that loaders open, and in those that they are fooled by."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import struct
import tarfile
import zlib
from collections.abc import Iterator

from benchmarks.corpora.archives import (
    DEFLATED,
    MAGIC,
    NOTE,
    array,
    legacy,
    tarred,
    torch_zip,
    zipped,
)
from benchmarks.corpora.pickles import (
    ATTACK,
    BENIGN,
    NONE,
    RUN,
    STOP,
    call,
    listed,
    named,
    pairs,
    proto,
    tensors,
    text,
)  # fmt: skip
from benchmarks.corpora.sample import Sample


def samples() -> Iterator[Sample]:
    """Yield the containers; what is in them is `ATTACK` or an adapter that runs it first."""
    adapter = tensors(before=RUN)
    groups = (
        ("torch", _torches(adapter)), ("wrapped", _wrapped(adapter)),
        ("arrays", _arrays()), ("polyglot", _polyglots(adapter)),
    )  # fmt: skip
    for group, files in groups:
        for name, (file, data) in files.items():
            yield Sample(group, name, file, data)
    yield from _inert()


_Files = dict[str, tuple[str, bytes]]


def _torches(adapter: bytes) -> _Files:
    call_first = proto(2) + RUN + b"0" + text("x") + STOP
    files = {
        "zip, call before the tensors": torch_zip(adapter),
        "zip, call beside the tensors": torch_zip(tensors(extra=RUN)),
        "zip, call in a persistent id": torch_zip(proto(2) + b"(" + text("storage") + RUN + b"tQ."),
        "zip, second pickle in data.pkl": torch_zip(tensors() + ATTACK),
        "zip, no STOP": torch_zip(adapter[:-1]),
        "zip, big-endian": torch_zip(adapter, {"adapter_model/byteorder": b"big"}),
        "legacy, in the object": legacy(adapter),
        "legacy, beside the tensors": legacy(tensors(extra=RUN)),
        "legacy, in the system info": legacy(tensors(), system=call_first),
        "legacy, in the protocol": legacy(tensors(), protocol=call_first),
        "legacy, in the keys": legacy(
            tensors(), keys=proto(2) + RUN + b"0" + listed(text("0")) + STOP
        ),
        "legacy, before the magic number": legacy(
            tensors(), first=proto(2) + RUN + b"0" + MAGIC[2:]
        ),
        "legacy, wrong magic number": legacy(adapter, first=proto(2) + b"K\x07."),
        "legacy, magic number of a call": legacy(
            tensors(),
            first=proto(2) + call(named("builtins", "eval"), text("0x1950a86a20f9469cfc6c")) + b".",
        ),
        "legacy, keys cut off": legacy(adapter)[:300],
        "TorchScript, in data.pkl": torch_zip(
            adapter, {"adapter_model/code/__torch__.py": b"class A(Module):\n  pass\n",
                      "adapter_model/constants.pkl": proto(2) + b")."}
        ),
        "TorchScript, in constants.pkl": torch_zip(
            tensors(),
            {"adapter_model/code/__torch__.py": b"", "adapter_model/constants.pkl": ATTACK},
        ),
        "TorchScript, in a .debug_pkl": torch_zip(
            tensors(), {"adapter_model/code/__torch__.py.debug_pkl": ATTACK}
        ),
        "mobile, in bytecode.pkl": torch_zip(tensors(), {"adapter_model/bytecode.pkl": ATTACK}),
        "package, in data.pkl": zipped(
            {"p/.data/version": b"6", "p/.data/extern_modules": b"os\n", "p/a/a.pkl": ATTACK}
        ),
        "oldest tar, in pickle": tarred(
            {"storages": BENIGN, "tensors": BENIGN, "pickle": adapter}
        ),
        "oldest tar, in storages": tarred(
            {"storages": ATTACK, "tensors": BENIGN, "pickle": BENIGN}
        ),
        "oldest tar, in tensors": tarred(
            {"storages": BENIGN, "tensors": ATTACK, "pickle": BENIGN}
        ),
    }  # fmt: skip
    return {name: ("adapter_model.bin", data) for name, data in files.items()}


def _wrapped(adapter: bytes) -> _Files:
    inner = torch_zip(adapter)
    nemo = {"model_config.yaml": b"target: nemo\n", "model_weights.ckpt": inner}
    files: _Files = {
        ".nemo": ("adapter.nemo", tarred(nemo)),
        ".nemo, gzipped": ("adapter.nemo", gzip.compress(tarred(nemo), mtime=0)),
        ".nemo in a .nemo": ("adapter.nemo", tarred({"inner.nemo": tarred(nemo)})),
        ".mar": ("model.mar", zipped({"MAR-INF/MANIFEST.json": b"{}", "model.pt": inner})),
        "zip in zip": ("adapter.zip", zipped({"adapter_model.bin": inner})),
        "zip in zip, deflated": ("adapter.zip", zipped({"adapter_model.bin": inner}, DEFLATED)),
        "zip in zip in zip": (
            "adapter.zip",
            zipped({"a.zip": zipped({"adapter_model.bin": inner})}),
        ),
        "pickle in zip in zip in zip": (
            "adapter.zip",
            zipped({"a.zip": zipped({"b.zip": zipped({"x.pkl": ATTACK})})}),
        ),
        "tar in zip": ("adapter.zip", zipped({"a.tar": tarred({"x.pkl": ATTACK})})),
        "zip in tar": ("adapter.tar", tarred({"a.zip": zipped({"x.pkl": ATTACK})})),
        "tar in tar": ("adapter.tar", tarred({"a.tar": tarred({"x.pkl": ATTACK})})),
        "tar.gz in zip": (
            "adapter.zip",
            zipped({"a.tar.gz": gzip.compress(tarred({"x.pkl": ATTACK}), mtime=0)}),
        ),
        "pickle in gzip in zip": (
            "adapter.zip",
            zipped({"x.pkl.gz": gzip.compress(ATTACK, mtime=0)}),
        ),
        "gzip of gzip": ("file.pkl.gz", gzip.compress(gzip.compress(ATTACK, mtime=0), mtime=0)),
        "gzip of gzip of gzip": (
            "file.pkl.gz",
            gzip.compress(gzip.compress(gzip.compress(ATTACK, mtime=0), mtime=0), mtime=0),
        ),
        "tar, PAX": ("a.tar", tarred({"x.pkl": ATTACK}, tarfile.PAX_FORMAT)),
        "tar, PAX, long name": (
            "a.tar",
            tarred({"d" * 90 + "/" + "\u00e9" * 120 + ".pkl": ATTACK}, tarfile.PAX_FORMAT),
        ),
        "tar, GNU long name": (
            "a.tar",
            tarred({"d" * 150 + "/" + "c" * 120 + ".pkl": ATTACK}, tarfile.GNU_FORMAT),
        ),
        "tar, two members of one name": (
            "a.tar",
            tarred({"x.pkl": BENIGN})[:1024] + tarred({"x.pkl": ATTACK}),
        ),
        "tar, bad checksum in the second": ("a.tar", _bad_tar()),
        "tar after zero blocks": ("a.tar", tarred({"x.pkl": BENIGN}) + tarred({"x.pkl": ATTACK})),
        "tar, 1,500 entries first": (
            "a.tar",
            tarred({**{f"e{n}": b"" for n in range(1500)}, "x.pkl": ATTACK}),
        ),
        "gzip, 200 empty streams first": (
            "file.pkl.gz",
            gzip.compress(b"", mtime=0) * 200 + gzip.compress(ATTACK, mtime=0),
        ),
        "tar, called notes.txt": ("a.tar", tarred({"notes.txt": ATTACK})),
        "tar, sparse": ("a.tar", _sparse()),
        "7z": ("adapter.7z", b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(24) + ATTACK),
        "rar": ("adapter.rar", b"Rar!\x1a\x07\x01\x00" + ATTACK),
        "zstd": ("file.pkl.zst", b"\x28\xb5\x2f\xfd\x20" + bytes([len(ATTACK)]) + _zstd_raw()),
    }
    packers = {
        "gzip": lambda data: gzip.compress(data, mtime=0), "bzip2": bz2.compress,
        "xz": lzma.compress, "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
        "zlib": zlib.compress,
    }  # fmt: skip
    for name, pack in packers.items():
        files[f"{name} of a pickle"] = ("file.joblib", pack(ATTACK))
        files[f"{name} of a tar"] = (f"a.tar.{name}", pack(tarred({"x.pkl": ATTACK})))
        files[f"{name} of a torch zip"] = (f"adapter_model.bin.{name}", pack(inner))
        if name != "bzip2":  # it gives nothing back before a block of it is whole
            files[f"{name}, cut"] = (
                "file.joblib",
                pack(ATTACK + random.Random(1).randbytes(4000))[:-40],
            )
        files[f"{name}, a second stream"] = ("file.joblib", pack(BENIGN) + pack(ATTACK))
    return files


_STATE = (
    text("shape"), b"K\x10\x85", text("dtype"),
    call(named("numpy", "dtype"), text("f4"), b"\x89", b"\x88"), text("order"), text("C"),
    text("numpy_array_alignment_bytes"), b"K\x10", text("subclass"), named("numpy", "ndarray"),
)  # fmt: skip
#: What joblib writes in the place of an array of 16 floats; the numbers follow it.
WRAPPER = named("joblib.numpy_pickle", "NumpyArrayWrapper") + b")\x81" + pairs(*_STATE) + b"b"


def numbers(padding: int) -> bytes:
    """Return those numbers, with what joblib writes so that they are aligned."""
    return bytes([padding]) + b"\xff" * padding + b"\xff\0\x80?" * 16


def _arrays() -> _Files:
    numbered = WRAPPER + numbers(3)
    return {
        "npy of objects": ("file.npy", array("|O", ATTACK)),
        "npy of objects, version 2": ("file.npy", array("|O", ATTACK, 2)),
        "npy of objects, version 3": ("file.npy", array("|O", ATTACK, 3)),
        "npy of records with objects": ("file.npy", array("[(\\'a\\', \\'|O\\')]", ATTACK)),
        "npy, header of one byte order": ("file.npy", array("O8", ATTACK)),
        "npz": ("file.npz", zipped({"a.npy": array("|O", ATTACK)})),
        "npz, deflated": ("file.npz", zipped({"a.npy": array("|O", ATTACK)}, DEFLATED)),
        "npz, member without suffix": ("file.npz", zipped({"a": array("|O", ATTACK)})),
        "npz, a bare pickle": ("file.npz", zipped({"a.npy": ATTACK})),
        "npy that is a pickle": ("file.npy", ATTACK),
        "npy in gzip": ("file.npy.gz", gzip.compress(array("|O", ATTACK), mtime=0)),
        "two npy in a row": ("file.npy", array("<f4", b"\0\0\x80?") + array("|O", ATTACK)),
        "joblib, behind an array": (
            "file.joblib",
            proto(4) + listed(numbered, RUN) + STOP,
        ),
        "joblib, compressed as before 0.10": (
            "file.joblib",
            b"ZF" + hex(len(ATTACK)).encode().ljust(19) + zlib.compress(ATTACK),
        ),
        "joblib, before an array": (
            "file.joblib",
            proto(4) + RUN + b"0" + numbered + STOP,
        ),
        "joblib, where an array would be": (
            "file.pkl",
            proto(4) + listed(WRAPPER + RUN, NONE * 64) + STOP,
        ),
        "joblib, behind two arrays, compressed": (
            "file.joblib",
            zlib.compress(proto(4) + listed(numbered, numbered, RUN) + STOP),
        ),
    }


def _safetensors() -> bytes:
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return struct.pack("<Q", len(header)) + header + bytes(4)


def _polyglots(adapter: bytes) -> _Files:
    inner = torch_zip(adapter)
    safe = _safetensors()
    return {
        "pickle, then a benign zip": ("adapter_model.bin", ATTACK + torch_zip(tensors())),
        "benign pickle, then a zip": ("adapter_model.bin", BENIGN + inner),
        "safetensors, then a zip": ("adapter_model.safetensors", safe + inner),
        "pickle that begins like safetensors": (
            "adapter_model.bin", b"U\x0a\0\0\0\0\0\0{ 01" + RUN + STOP
        ),
        "pickle that begins like GGUF": ("adapter_model.bin", b"GGUF01234" + RUN + STOP),
        "pickle that begins like text": ("readme.bin", b"(S'# Read me'\n0" + RUN + STOP),
        "pickle that begins like JSON": ("adapter_model.bin", b"}" + RUN + STOP),
        "text, then a zip": ("adapter_model.bin", NOTE + inner),
        "PNG, then a zip": ("logo.bin", b"\x89PNG\r\n\x1a\n" + bytes(100) + inner),
        "gzip, then a zip": ("adapter_model.bin", gzip.compress(NOTE, mtime=0) + inner),
        "tar that is a pickle": ("adapter_model.bin", _tar_pickle()),
        "zip in a zip comment": ("adapter_model.bin", zipped({"a.txt": NOTE}, comment=inner)),
        "a large-file pointer, then a zip": (
            "adapter_model.bin",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
            + inner,
        ),
        "HDF5 mark, then a zip": ("adapter_model.bin", b"\x89HDF\r\n\x1a\n" + bytes(200) + inner),
        "npy of floats, then a zip": ("file.npy", array("<f4", b"\0\0\x80?") + inner),
    }  # fmt: skip


def _inert() -> Iterator[Sample]:
    behind = legacy(tensors()) + ATTACK
    yield Sample("inert", "legacy torch, a pickle after the storages", "adapter_model.bin", behind,
                 "inert", "torch stops before it")  # fmt: skip
    yield Sample("inert", "safetensors, then a pickle", "adapter_model.safetensors",
                 _safetensors() + ATTACK, "inert", "its loaders refuse the file")  # fmt: skip
    far = BENIGN + bytes(1 << 16) + ATTACK
    yield Sample("inert", "a pickle 64 kB after a benign one", "file.pkl", far, "inert",
                 "no loader reads on after zeros")  # fmt: skip
    source = {"adapter_model/code/__torch__.py": b"def f():\n  import os\n"}
    yield Sample("inert", "TorchScript source that imports os", "adapter_model.bin",
                 torch_zip(tensors(), source), "inert",
                 "TorchScript is a language of its own: it has no os")  # fmt: skip
    yield Sample("inert", "text about os.system", "notes.txt", b"cos\nsystem is how it goes\n",
                 "inert", "no pickle: it never calls")  # fmt: skip


def _bad_tar() -> bytes:
    whole = bytearray(tarred({"a.txt": NOTE, "x.pkl": ATTACK}))
    whole[1024 + 148 : 1024 + 156] = b"0000001\0"
    return bytes(whole)


def _sparse() -> bytes:
    whole = bytearray(tarred({"x.pkl": ATTACK}))
    whole[156:157] = b"S"
    whole[148:156] = b" " * 8
    whole[148:156] = b"%06o\0 " % sum(whole[:512])
    return bytes(whole)


def _tar_pickle() -> bytes:
    """Return a pickle whose first 512 bytes are also a tar header."""
    start = RUN + STOP
    head = bytearray(start + bytes(512 - len(start)))
    head[124:136] = b"00000000000\0"
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + bytes(1024)


def _zstd_raw() -> bytes:
    return (len(ATTACK) << 3 | 1).to_bytes(3, "little") + ATTACK
