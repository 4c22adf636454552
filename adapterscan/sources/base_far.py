"""A base model on the hub, at one commit: of its weights only what is asked for, by ranges.

Configs come whole, by the guarded way of `hub`; of the weights the headers, and the rows that are
compared. A file that the hub's client has in its cache is read there.
Limits: ranges cannot be compared with the hash of the whole file; the report says so.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import IO

from adapterscan.errors import NotFound, SourceError
from adapterscan.formats.safetensors import Readable
from adapterscan.formats.tensors import TensorInfo
from adapterscan.model import Artifact, File, Ref, Skipped
from adapterscan.sources.base import CONFIG
from adapterscan.sources.base_shards import (
    INDEX,
    LocalShard,
    Shards,
    files_of,
    is_tied,
    parsed,
)
from adapterscan.sources.hub import far_files, open_hub
from adapterscan.sources.hub_options import HubOptions
from adapterscan.sources.hub_plan import Plan, check_total
from adapterscan.sources.hub_ranges import Remote
from adapterscan.sources.names import unsafe_name
from adapterscan.text import printable, size_text

PIECE = 4 << 20  # bytes of one request
SPOOLED = 64 << 20  # bytes of a tensor above which it may be asked for again: it is kept on disk


class FarFile:
    """One file on the hub as a shard."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self.path, self.size = remote.file.path, remote.file.size
        self.brought = 0  # bytes

    def read(self, start: int, length: int) -> bytes:
        """Return up to `length` bytes from `start`, in requests of PIECE side by side."""
        stop = min(start + length, self.size)
        if stop <= start:
            return b""
        edges = [*range(start, stop, PIECE), stop]
        self.brought += stop - start
        return b"".join(self._remote.bring(list(pairwise(edges))))


class FarShards(Shards):
    """Shards on the hub. Of a large tensor every range comes once, until another one is read."""

    def __init__(
        self, name: str, files: Sequence[Readable], *, where: Mapping[str, str], tied: bool
    ) -> None:
        super().__init__(name, files, where=where, tied=tied)
        self._far = [file for file in files if isinstance(file, FarFile)]
        self._spool: IO[bytes] | None = None
        self._spooled: dict[tuple[str, int, int], int] = {}  # where each range is in the spool

    def bytes_of(self, file: Readable, tensor: TensorInfo, start: int, length: int) -> bytes:
        """Return bytes of a tensor, from the hub or from what came before."""
        if tensor.nbytes <= SPOOLED or not isinstance(file, FarFile):
            return super().bytes_of(file, tensor, start, length)
        key = tensor.name, start, length
        if self._spool is None or not any(name == tensor.name for name, _, _ in self._spooled):
            self._renew()
        assert self._spool is not None  # noqa: S101
        if key in self._spooled:
            self._spool.seek(self._spooled[key])
            return self._spool.read(length)
        data = super().bytes_of(file, tensor, start, length)
        self._spooled[key] = self._spool.seek(0, 2)
        self._spool.write(data)
        return data

    def notes(self) -> Iterable[Skipped]:
        """Say how much came by ranges, and that no hash could be compared."""
        brought, total = sum(f.brought for f in self._far), sum(f.size for f in self._far)
        if brought:
            yield Skipped(
                "the base's own hashes", f"{size_text(brought)} of {size_text(total)} of "
                f"{printable(self.name, 120)} were read by ranges; nothing of it could be "
                "compared with the hub's hash", failed=False,
                hint="download the base and give its folder to have all of it here",
            )  # fmt: skip

    def _renew(self) -> None:
        if self._spool is not None:
            self._spool.close()
        self._spool, self._spooled = tempfile.TemporaryFile(), {}  # noqa: SIM115
        weakref.finalize(self, self._spool.close)


def find_far(ref: Ref, options: HubOptions) -> Artifact:
    """Return the listing of a repository at its commit, with the configs. Raises SourceError."""
    return open_hub(ref, options, _planned)


def open_far(ref: Ref, options: HubOptions, artifact: Artifact) -> FarShards:
    """Return the base in a listing. Raises SourceError or FileProblem."""
    assert artifact.commit is not None  # noqa: S101 - every artifact of a hub has one
    files = {file.path: file for file in artifact.files}
    documents = {}
    for path in (CONFIG, INDEX):
        if path in files:
            documents[path] = _document(files[path])
    weights = [path for path in files if path.endswith(".safetensors") and "/" not in path]
    if CONFIG not in files or not weights:
        raise NotFound(
            f"{printable(ref.location)} holds no {CONFIG} with *.safetensors",
            hint="give the base itself, not an adapter of it; pickled bases are not read",
        )
    wanted, where = files_of(documents.get(INDEX), weights)
    missing = [path for path in wanted if files[path].local is None]
    far: dict[str, Readable] = {
        path: FarFile(found) if isinstance(found, Remote) else LocalShard(path, found)
        for path, found in zip(
            missing,
            far_files(ref, options, artifact.commit, [files[path] for path in missing]),
            strict=True,
        )
    }
    shards = [far[path] if path in far else _near(files[path]) for path in wanted]
    name = f"{ref.location}@{artifact.commit}"
    return FarShards(name, shards, where=where, tied=is_tied(documents.get(CONFIG)))


def _near(file: File) -> LocalShard:
    assert file.local is not None  # noqa: S101
    return LocalShard(file.path, file.local)


def _document(file: File) -> object:
    if file.local is None:
        raise SourceError(
            f"the base's {file.path} could not be fetched: {file.not_fetched}",
            hint="try again, or give a local folder",
        )
    return parsed(Path(file.local).read_bytes(), file.path)


def _planned(listing: Iterable[File], *, max_bytes: int) -> Plan:
    """Plan to fetch the two documents from the top of a repository, and to list the rest."""
    files = sorted((f for f in listing if not unsafe_name(f.path)), key=lambda file: file.path)
    fetch = [file for file in files if file.path in (CONFIG, INDEX)]
    check_total(fetch, max_bytes)
    left = tuple(replace(f, not_fetched="read by ranges") for f in files if f not in fetch)
    return Plan(tuple(fetch), (), left, (), ())
