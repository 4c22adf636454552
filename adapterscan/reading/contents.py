"""What was read of one artifact: filled by reading, then only looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from adapterscan.calibration import Reference
from adapterscan.errors import (
    FileProblem,
    LimitExceeded,
    Malformed,
    Unsupported,
)
from adapterscan.formats import (
    chat_templates,
    weight_index,
)
from adapterscan.formats.config import AdapterConfig
from adapterscan.formats.hooks import Hook
from adapterscan.formats.peft import Adapter
from adapterscan.formats.reader import SourceFile
from adapterscan.formats.sniff import parse_lfs_pointer
from adapterscan.model import (
    Artifact,
    Evidence,
    File,
    FileKind,
    FileRecord,
    Skipped,
    Subject,
)
from adapterscan.onbase.base import BaseWeights
from adapterscan.provenance.papers import Papers
from adapterscan.text import size_text
from adapterscan.tokenizing import Tokenizers
from adapterscan.weighing.one_pass import Weighed

if TYPE_CHECKING:
    from adapterscan.formats.template_facts import Tree
    from adapterscan.provenance.signing import Key


HEAD_BYTES = 1024


@dataclass(frozen=True, slots=True)
class WeighedAdapter:
    """An adapter together with what the pass over its bytes measured."""

    adapter: Adapter
    weighed: Weighed

    @property
    def file(self) -> str:
        """Return the path of the weight file."""
        return self.adapter.weights.path


@dataclass(frozen=True, slots=True)
class Outline:
    """What stays of an adapter that was let go: enough to tell whether a twin of it agrees."""

    file: str
    folder: str
    config: str  # path of its config, "" without one
    shapes: bytes = b""  # digest of the names and shapes of its tensors
    deltas: int = 0
    norms: Sequence[float] = ()  # ‖ΔW‖ in the order of names, NONE where not measured; of twins


@dataclass(slots=True)
class Contents:
    """Everything that was read from one artifact. Filled by `read`, then only looked at.

    `tell` is told what is being done where that takes long.
    """

    artifact: Artifact
    peers: Reference = field(default_factory=Reference)  # other adapters, to compare with
    base: BaseWeights | None = None  # the base model, to compare with
    tell: Callable[[str], None] = lambda _: None
    key: Key | None = None  # to verify signatures with
    configs: dict[str, AdapterConfig] = field(default_factory=dict)  # by folder
    adapters: list[WeighedAdapter] = field(default_factory=list)
    outlines: list[Outline] = field(default_factory=list)  # of all adapters
    indexes: list[weight_index.WeightIndex] = field(default_factory=list)
    hooks: list[Hook] = field(default_factory=list)  # of configs and other documents
    templates: list[tuple[chat_templates.Template, Tree]] = field(default_factory=list)
    papers: Papers = field(default_factory=Papers)  # cards, licences, signatures; what texts tell
    tokenizers: Tokenizers = field(default_factory=Tokenizers)
    config_bytes: int = 0
    config_values: int = 0
    code_bytes: int = 0
    records: list[FileRecord] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def file(self, path: str) -> File:
        """Return the file of that path, which there is."""
        return next(file for file in self.artifact.files if file.path == path)

    def sha256(self, path: str) -> str:
        """Return the digest of a file that was read, "" where it was not read whole."""
        found = (record.sha256 for record in reversed(self.records) if record.path == path)
        return next(found, None) or ""


@dataclass(slots=True)
class Outcome:
    """How reading one file went."""

    status: str = "analysed"


def note_problem(contents: Contents, file: File, problem: FileProblem) -> None:
    if isinstance(problem, Malformed):
        kind = "config.defect" if file.kind is FileKind.CONFIG else "container.defect"
        note(contents, kind, file, problem.defect, reason=problem.reason)
    contents.skipped.append(
        Skipped(
            file.path, problem.reason, hint=problem.hint, detector="reading",
            failed=True,
        )
    )  # fmt: skip


def pointer(contents: Contents, file: File, data: bytes) -> Unsupported:
    pointer = parse_lfs_pointer(data)
    oid, size = pointer if pointer else ("", 0)
    note(contents, "file.lfs_pointer", file, size, oid=oid)
    return Unsupported(
        file.path, f"is a large-file pointer to {size_text(size)} that are not here: not scanned",
        hint="run `git lfs pull`, then scan again",
    )  # fmt: skip


def note(contents: Contents, name: str, file: File, value: str | int, **details: str) -> None:
    subject = Subject("file", file.path)
    contents.evidence.append(Evidence(name, subject, value, details=details))


def small(source: SourceFile, limit: int) -> bytes:
    if source.size > limit:
        raise LimitExceeded(
            source.path, f"is {size_text(source.size)}, over the limit of {size_text(limit)}",
            hint="files of this kind have kilobytes; treat it as hostile",
        )  # fmt: skip
    return source.read_all()


def folder_of(path: str) -> str:
    parent = str(PurePosixPath(path).parent)
    return "" if parent == "." else parent


def article(container: str) -> str:
    names: Mapping[str, str] = {
        "gguf": "a GGUF file", "npy": "a NumPy file", "tar": "a tar archive", "7z": "a 7z archive",
        "gzip": "a gzip stream", "hdf5": "an HDF5 file", "text": "text", "empty": "empty",
    }  # fmt: skip
    return names.get(container, "in a format we do not know")
