"""A base model in safetensors files, one or many: its tensors by name, read a few rows at a time.

The files lie here or far away: all that is asked of one is a range of its bytes.
Limits: what is read is not hashed, as most of it is never read; a folder is believed to be what its
name says. Bases in pickled files are not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapterscan.errors import (
    ChangedWhileReading,
    FileProblem,
    LimitExceeded,
    Malformed,
    NotFound,
    Unsupported,
)
from adapterscan.formats import strict_json
from adapterscan.formats.reader import SourceFile
from adapterscan.formats.safetensors import Readable, read_safetensors
from adapterscan.formats.tensors import TensorInfo, as_array, numpy_dtype
from adapterscan.model import Skipped
from adapterscan.onbase.base import BaseTensor
from adapterscan.onbase.directions import Directions
from adapterscan.onbase.spectrum import Leading
from adapterscan.text import printable, size_text

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SHARDS_LIMIT = 1000  # files; the largest models published have 200
_PLAIN = frozenset({"BF16", "F16", "F32", "F64"})
_JSON_LIMIT = 64 << 20
_VALUES_LIMIT = 1_000_000
_DEPTH = 4  # of `text_config` and the like, in which models of several parts have their settings


class LocalShard:
    """A file that lies here, opened for each read: a base can have hundreds, and none is held.

    Raises ChangedWhileReading where its size is another than it was at first.
    """

    def __init__(self, path: str, local: Path) -> None:
        self.path, self._local = path, local
        with SourceFile(path, local) as source:
            self.size = source.size

    def read(self, start: int, length: int) -> bytes:
        """Return up to `length` bytes from `start`."""
        with SourceFile(self.path, self._local) as source:
            if source.size != self.size:
                raise ChangedWhileReading(
                    self.path, "changed while it was being compared with",
                    hint="scan again when nothing is writing to the base",
                )  # fmt: skip
            return bytes(source.glance(start, length))


class Shards:
    """The tensors in safetensors files. `where`: of which file each is taken, {}: of any."""

    def __init__(
        self,
        name: str,
        files: Iterable[Readable],
        *,
        where: Mapping[str, str],
        tied: bool,
        notes: Sequence[Skipped] = (),
    ) -> None:
        self._name, self.tied = name, tied
        self._notes = tuple(notes)
        self._places: dict[str, tuple[Readable, TensorInfo]] = {}
        self.tensors: dict[str, BaseTensor] = {}
        for file in files:
            weights = read_safetensors(file)
            if weights.problem is not None:
                raise weights.problem
            for tensor in weights.tensors:
                if where.get(tensor.name, file.path) == file.path:
                    self._places[tensor.name] = file, tensor
                    self.tensors[tensor.name] = BaseTensor(tensor.name, tensor.dtype, tensor.shape)
        if not self.tensors:
            raise NotFound(f"the base {printable(name)} has no tensors in safetensors files")

    @property
    def name(self) -> str:
        """Return what reports call it."""
        return self._name

    def rows(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Return rows of a tensor in its own dtype. Raises FileProblem."""
        file, tensor = self._places[name]
        dtype = numpy_dtype(tensor.dtype)
        if dtype is None or tensor.dtype not in _PLAIN:  # 8 bits have scales beside them
            raise Unsupported(
                file.path, f"stores {printable(name, 80)} in {tensor.dtype}, which is no plain "
                "float", hint="give the base as it was published, before it was quantised",
            )  # fmt: skip
        if not tensor.shape:
            return as_array(tensor, file.read(tensor.start, tensor.nbytes)).reshape(1)
        each = tensor.nbytes // max(1, tensor.shape[0])
        data = self.bytes_of(file, tensor, start * each, (stop - start) * each)
        return np.frombuffer(data, dtype).reshape(stop - start, *tensor.shape[1:])

    def bytes_of(self, file: Readable, tensor: TensorInfo, start: int, length: int) -> bytes:
        """Return `length` bytes of a tensor from its byte `start`."""
        return file.read(tensor.start + start, length)

    def leading(self, name: str) -> Leading | None:
        """Return nothing: these are weights, no profile."""
        return None

    def directions(self) -> Directions | None:
        """Return nothing: nobody asked these weights."""
        return None

    def notes(self) -> Iterable[Skipped]:
        """Return what was said of it when it was opened."""
        return self._notes


def open_shards(folder: Path, name: str) -> Shards:
    """Return the base in a folder in the layout of transformers.

    Raises NotFound, or FileProblem for files that cannot be read.
    """
    names = {path.name for path in folder.glob("*.safetensors")}
    index = _document(folder / INDEX)
    wanted, where = files_of(index, names)
    config = _document(folder / CONFIG)
    files = [LocalShard(file, folder / file) for file in wanted]
    return Shards(name, files, where=where, tied=is_tied(config))


def files_of(index: object, names: Iterable[str]) -> tuple[Sequence[str], Mapping[str, str]]:
    """Return which of `names` to open, and by the index which tensor lies in which.

    Without an index: `model.safetensors`, or all of them. Raises Malformed for an index that names
    what is not there, LimitExceeded for too many.
    """
    names = sorted(names)
    table = index.get("weight_map") if isinstance(index, dict) else None
    where: dict[str, str] = {}
    if isinstance(table, dict):
        where = {key: file for key, file in table.items() if isinstance(file, str)}
        missing = sorted(set(where.values()) - set(names))
        if missing:
            raise Malformed(
                INDEX, f"names {printable(missing[0], 80)}, which is not there", defect="index",
                hint="fetch all files of the base again",
            )  # fmt: skip
        names = sorted(set(where.values()))
    elif SINGLE in names:
        names = [SINGLE]
    if len(names) > SHARDS_LIMIT:
        raise LimitExceeded(
            INDEX, f"names {len(names):,} files, over the limit of {SHARDS_LIMIT:,}",
            hint="the largest models have 200",
        )  # fmt: skip
    return names, where


def is_tied(config: object) -> bool:
    """Return whether a `config.json` ties the embeddings, as transformers does by default."""
    for _ in range(_DEPTH):
        if not isinstance(config, dict):
            return False
        if isinstance(tied := config.get("tie_word_embeddings"), bool):
            return tied
        if not isinstance(config.get("text_config"), dict):
            return True
        config = config["text_config"]
    return False


def parsed(data: bytes, path: str) -> object:
    """Return the JSON of a base's own file. Raises FileProblem."""
    return strict_json.parse(data, path, limit=_JSON_LIMIT, values=_VALUES_LIMIT)


def _document(path: Path) -> object:
    if not path.is_file():
        return None
    try:
        size = path.stat().st_size
        if size > _JSON_LIMIT:
            raise LimitExceeded(
                path.name, f"is {size_text(size)}, over the limit of {size_text(_JSON_LIMIT)}",
                hint="it has a line for each tensor; look at what is in it",
            )  # fmt: skip
        return parsed(path.read_bytes(), path.name)
    except OSError as error:
        raise FileProblem(
            path.name, f"cannot be read ({error.strerror})", hint="check its permissions"
        ) from error
