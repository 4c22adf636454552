"""Plant payloads into low bits of trained factors and count how many are found.

python -m benchmarks.steganography [--trials 20] [--seed 7]

Prints the table of docs/steganography.md. Carriers are `fixtures/trained/benign` as it is (F32),
and cast to BF16 and F16. A payload starts at a random element (a multiple of eight) of a random
factor; it goes on in the next factor of the file. Nothing that is planted is ever run.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
from numpy._core import _multiarray_umath

from adapterscan.formats.bit_sample import Bits, BitSample
from adapterscan.formats.reader import SourceFile
from adapterscan.formats.safetensors import read_safetensors
from adapterscan.formats.tensors import TensorInfo

ROOT = Path(__file__).resolve().parents[2]
CARRIER = ROOT / "fixtures" / "trained" / "benign" / "adapter_model.safetensors"
SIZES = (128, 512, 2048, 8192)
DEPTHS = (1, 2, 4, 8)
THRESHOLD = 6.0  # of rules/low-bits-patterned
KINDS = ("text", "program", "machine code", "gzip", "deflate", "encrypted")

Words = npt.NDArray[np.unsignedinteger]


def payload(kind: str, size: int, rng: np.random.Generator) -> bytes:
    """Return `size` bytes: English text, a library from its first byte or from its middle, that
    compressed with and without a header, or random bytes."""
    text = (ROOT / "docs" / "threats.md").read_bytes() + (ROOT / "LICENSE").read_bytes()
    code = Path(str(_multiarray_umath.__file__)).read_bytes()
    if kind == "encrypted":
        return rng.bytes(size)
    if kind == "text":
        at = int(rng.integers(0, len(text) - size))
        return text[at : at + size]
    if kind == "program":
        return code[:size]
    at = int(rng.integers(1 << 16, len(code) // 2))
    if kind == "machine code":
        return code[at : at + size]
    bits = 31 if kind == "gzip" else -15
    squeeze = zlib.compressobj(9, zlib.DEFLATED, bits)
    return (squeeze.compress(code[at : at + 64 * size]) + squeeze.flush())[:size]


def carrier(dtype: str) -> list[tuple[TensorInfo, Words]]:
    """Return the tensors of the carrier, cast to `dtype`, as whole numbers."""
    found = []
    with SourceFile(str(CARRIER), CARRIER) as source:
        for tensor in sorted(read_safetensors(source).tensors, key=lambda item: item.start):
            values = np.frombuffer(source.read(tensor.start, tensor.nbytes), "<f4")
            if dtype == "BF16":
                words: Words = values.astype(ml_dtypes.bfloat16).view("<u2")
            else:
                words = values.astype("<f2").view("<u2") if dtype == "F16" else values.view("<u4")
            found.append((replace(tensor, dtype=dtype, nbytes=words.nbytes), words))
    return found


def planted(
    tensors: Sequence[tuple[TensorInfo, Words]], data: bytes, depth: int, rng: np.random.Generator
) -> list[tuple[TensorInfo, Words]]:
    """Return the tensors with `data` in `depth` low bits, first element in the highest bits."""
    sizes = np.array([words.size for _, words in tensors])
    flat = np.concatenate([words for _, words in tensors])
    bits = np.unpackbits(np.frombuffer(data, np.uint8)).reshape(-1, depth)
    parts = np.packbits(bits, axis=1)[:, 0] >> (8 - depth)
    first = rng.permutation(np.cumsum(sizes) - sizes)
    starts = [start for start in first if start + parts.size <= flat.size]
    room = (flat.size - int(starts[0]) - parts.size) // 8
    start = int(starts[0]) + 8 * int(rng.integers(0, min(64, room) + 1))
    piece = flat[start : start + parts.size]
    mask = flat.dtype.type(~((1 << depth) - 1) & ((1 << (8 * flat.itemsize)) - 1))
    flat[start : start + parts.size] = (piece & mask) | parts.astype(flat.dtype)
    cut = np.split(flat, np.cumsum(sizes)[:-1])
    return [(tensor, words) for (tensor, _), words in zip(tensors, cut, strict=True)]


def look(tensors: Sequence[tuple[TensorInfo, Words]]) -> Bits:
    """Return what a scan's pass would see."""
    sample = BitSample([tensor for tensor, _ in tensors])
    for tensor, words in tensors:
        sample.factor(tensor, words.tobytes())
    return sample.finish()


def is_found(bits: Bits) -> bool:
    """Return whether a rule of medium severity would speak."""
    strong = any(item.strength >= THRESHOLD for item in bits.patterns)
    return strong or bool(bits.hidden) or bool(bits.mixed)


def cells(trials: int, seed: int) -> Iterator[str]:
    """Yield the rows of the table: of `trials` planted payloads, how many were found."""
    yield (
        "| payload | bytes | "
        + " | ".join(
            f"{dtype}, {depth} bit" for dtype in ("F32", "BF16", "F16") for depth in DEPTHS
        )
        + " |"
    )
    yield "|---|---|" + "---|" * (3 * len(DEPTHS))
    carriers = {dtype: carrier(dtype) for dtype in ("F32", "BF16", "F16")}
    for kind in KINDS:
        for size in SIZES:
            row = []
            for tensors in carriers.values():
                for depth in DEPTHS:
                    rng = np.random.default_rng((seed, size, depth, KINDS.index(kind)))
                    hits = sum(
                        is_found(look(planted(tensors, payload(kind, size, rng), depth, rng)))
                        for _ in range(trials)
                    )
                    row.append(f"{hits}")
            yield f"| {kind} | {size:,} | " + " | ".join(row) + " |"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steganography", description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    for dtype in ("F32", "BF16", "F16"):
        clean = look(carrier(dtype))
        best = max((item.strength for item in clean.patterns), default=0.0)
        print(f"nothing planted, {dtype}: found {is_found(clean)}, strongest {best:.1f}")
    for line in cells(options.trials, options.seed):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
