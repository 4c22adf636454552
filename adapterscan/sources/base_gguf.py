"""A base model in one GGUF file, under the names and in the layout that transformers give it.

Source: llama.cpp, `convert_hf_to_gguf.py` (it stores the rows of q and k of Llamas pairwise for its
rotary embedding, and Gemma's norms plus one); transformers 5.24, `modeling_gguf_pytorch_utils.py`,
which undoes both, and which tests/oracle holds this against. Values are what the file dequantises
to: not the weights that were trained.
Limits: only architectures whose tensors are known not to be changed otherwise (ARCHITECTURES).
Types are dequantised by ggml's own package, `gguf`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adapterscan.errors import Malformed, Unsupported, UsageError
from adapterscan.formats.gguf import GgufHeader, GgufTensor, read_gguf
from adapterscan.formats.tensors import numpy_dtype
from adapterscan.model import Skipped
from adapterscan.onbase.base import BaseTensor
from adapterscan.onbase.directions import Directions
from adapterscan.onbase.spectrum import Leading
from adapterscan.sources.base_shards import LocalShard
from adapterscan.text import printable

_PERMUTED = frozenset({"llama"})
_NORMS_PLUS_ONE = frozenset({"gemma", "gemma2", "gemma3"})
ARCHITECTURES = _PERMUTED | _NORMS_PLUS_ONE | {"qwen2", "qwen3"}

Decode = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]

_FLOATS = {0: "F32", 1: "F16", 30: "BF16"}
#: ggml's numbers of the types that a report tells apart; others are quantised.
_TYPES = {**_FLOATS, 2: "Q4_0", 3: "Q4_1", 8: "Q8_0", 12: "Q4_K", 14: "Q6_K"}

_TOP = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_GEMMA = {
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_NAME = re.compile(r"(?:blk\.(\d{1,4})\.)?(\w+)\.(weight|bias)")


class GgufBase:
    """The tensors of a GGUF file.

    Raises FileProblem for what cannot be read.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._name = name
        self._file = LocalShard(path.name, path)
        header = read_gguf(self._file)
        self.architecture = str(header.fields.get("general.architecture", ""))
        if self.architecture not in ARCHITECTURES:
            raise Unsupported(
                path.name, f"holds the architecture {printable(self.architecture, 40)!r}; how its "
                f"tensors are rearranged is known for {', '.join(sorted(ARCHITECTURES))}",
                hint="give the base as a folder with safetensors, or from the hub",
            )  # fmt: skip
        self._heads = self._counts(header)
        self._stored: dict[str, GgufTensor] = {}
        self.tensors: Mapping[str, BaseTensor] = dict(self._named(header))
        self.tied = "lm_head.weight" not in self.tensors

    @property
    def name(self) -> str:
        """Return what reports call it."""
        return self._name

    def rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Return rows in float32, in the order and of the value that transformers have them."""
        stored, tensor = self._stored[name], self.tensors[name]
        if len(tensor.shape) > 1 and (order := self._order(name, tensor.shape[0])) is not None:
            head = len(order)
            first, last = start - start % head, min(tensor.shape[0], stop + -stop % head)
            whole = self._read(stored, tensor, first, last)
            turned = whole.reshape(-1, head, *tensor.shape[1:])[:, order].reshape(whole.shape)
            return turned[start - first : stop - first]
        found = self._read(stored, tensor, start, stop)
        plus = self.architecture in _NORMS_PLUS_ONE and name.endswith("norm.weight")
        return found - np.float32(1) if plus else found

    def leading(self, name: str) -> Leading | None:
        """Return nothing: these are weights, no profile."""
        return None

    def directions(self) -> Directions | None:
        """Return nothing: nobody asked these weights."""
        return None

    def notes(self) -> Iterable[Skipped]:
        """Say that a GGUF file holds rounded weights."""
        kinds = {tensor.dtype for tensor in self.tensors.values()} - {"F32", "F16", "BF16"}
        if kinds:
            yield Skipped(
                "the base as published", f"{printable(self._name, 120)} stores them rounded "
                f"({', '.join(sorted(kinds))}); compared was with what that dequantises to",
                failed=False, hint="give the base as safetensors to compare with the original",
            )  # fmt: skip

    def _read(
        self, stored: GgufTensor, tensor: BaseTensor, start: int, stop: int
    ) -> npt.NDArray[np.float32]:
        if len(tensor.shape) < 2:  # a vector is stored as one row
            return self._values(stored, 0, 1, tensor.numel)[0, start:stop]
        columns = tensor.matrix[1]
        found = self._values(stored, start, stop, columns)
        return found.reshape(stop - start, *tensor.shape[1:])

    def _values(
        self, stored: GgufTensor, start: int, stop: int, columns: int
    ) -> npt.NDArray[np.float32]:
        """Return rows of `columns` values each, dequantised."""
        try:
            decode, each = _reader(stored.kind, columns)
            data = self._file.read(stored.start + start * each, (stop - start) * each)
            return decode(np.frombuffer(data, np.uint8).reshape(stop - start, each))
        except (ValueError, KeyError, NotImplementedError) as error:
            raise Unsupported(
                self._file.path, f"stores {printable(stored.name, 80)} in a way that cannot be "
                f"read ({printable(str(error), 80)})", hint="give the base as safetensors",
            ) from error  # fmt: skip

    def _named(self, header: GgufHeader) -> Iterable[tuple[str, BaseTensor]]:
        layer = {**_LAYER, **_GEMMA} if self.architecture in _NORMS_PLUS_ONE else _LAYER
        if self.architecture == "gemma":  # the first one has the norms of a Llama
            layer = _LAYER
        for stored in header.tensors:
            match = _NAME.fullmatch(stored.name)
            if match is None:
                continue
            number, part, leaf = match.groups()
            known = _TOP.get(part) if number is None else layer.get(part)
            if known is None:
                continue
            name = f"{known}.{leaf}" if number is None else f"model.layers.{number}.{known}.{leaf}"
            self._stored[name] = stored
            yield name, BaseTensor(name, _TYPES.get(stored.kind, "quantised"), stored.shape)

    def _counts(self, header: GgufHeader) -> tuple[int, int]:
        """Return how many heads q and k have. Raises Malformed where they rule the layout."""
        q = header.fields.get(f"{self.architecture}.attention.head_count", 0)
        k = header.fields.get(f"{self.architecture}.attention.head_count_kv", q)
        if not isinstance(q, int) or not isinstance(k, int) or min(q, k) < 1:
            raise Malformed(
                self._file.path, "does not say how many heads it has", defect="gguf",
                hint="download it again",
            )  # fmt: skip
        return q, k

    def _order(self, name: str, rows: int) -> npt.NDArray[np.intp] | None:
        """Return which stored row of a head stands where, None where they stand in their order."""
        if self.architecture not in _PERMUTED:
            return None
        at = 0 if ".q_proj." in name else 1 if ".k_proj." in name else None
        if at is None:
            return None
        head = rows // self._heads[at]
        return np.arange(head).reshape(head // 2, 2).T.reshape(-1)


def _reader(kind: int, columns: int) -> tuple[Decode, int]:
    """Return what makes floats of rows of bytes (n, each), and how many bytes a row has.

    Raises UsageError where quantised rows want the package `gguf` and it is not installed.
    """
    if kind in _FLOATS:
        dtype = numpy_dtype(_FLOATS[kind])
        assert dtype is not None  # noqa: S101
        return lambda raw: raw.view(dtype).astype(np.float32), dtype.itemsize * columns
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize
    except ImportError as error:
        raise UsageError(
            "a quantised GGUF base is read with the package gguf, which is not installed",
            hint="pip install gguf (adapterscan[probe] has it), or give a folder with safetensors",
        ) from error
    known = GGMLQuantizationType(kind)
    block, size = GGML_QUANT_SIZES[known]
    return lambda raw: dequantize(raw, known), columns // block * size
