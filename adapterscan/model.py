"""The nouns: what travels from a reference to a report. Frozen values, no library.

Ref ─▶ Artifact(File…) ─▶ Evidence… ─▶ Finding… ─▶ Report(+ Skipped… + Coverage)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import NewType

from adapterscan.errors import AdapterscanError

Sha256 = NewType("Sha256", str)
GitSha1 = NewType("GitSha1", str)
ModulePath = NewType("ModulePath", str)

Scalar = bool | int | float | str | None
Part = tuple[int, bytes]  # where it starts in its file, and its bytes
_NOTHING: Mapping[str, Scalar] = MappingProxyType({})


class Severity(IntEnum):
    """How bad it is if the finding is true."""

    INFO = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    @property
    def label(self) -> str:
        """Return the lower-case name used in reports, rules and options."""
        return self.name.lower()


class Confidence(IntEnum):
    """How sure we are that the finding is true."""

    LOW = 0
    MEDIUM = 1
    HIGH = 2

    @property
    def label(self) -> str:
        """Return the lower-case name used in reports and rules."""
        return self.name.lower()


class Need(Enum):
    """An input that a detector declares it cannot do without."""

    FILES = "files"
    WEIGHTS = "weights"
    BASE = "base"
    PEERS = "peers"
    RUNNER = "runner"


class SourceKind(Enum):
    """Where a reference points."""

    HUB = "hub"
    FOLDER = "folder"
    FILE = "file"


class FileKind(Enum):
    """What a file is for, by name alone. Content is judged by the detectors."""

    CONFIG = "config"  # adapter_config.json
    WEIGHTS = "weights"  # adapter weights, in whatever container
    PICKLE = "pickle"  # other files whose loaders unpickle: training_args.bin, optimizer.pt, …
    CARD = "card"  # README.md
    TOKENIZER = "tokenizer"  # tokenizer and chat template files
    CODE = "code"  # something an interpreter would run
    OTHER = "other"  # text and media that no loader unpickles
    UNKNOWN = "unknown"  # a suffix that we do not know: anything could be in it


@dataclass(frozen=True, slots=True)
class Ref:
    """What the user pointed at, parsed but not resolved.

    `location` is a repository id (`org/name`) for HUB and a path for FOLDER and FILE.
    """

    text: str
    kind: SourceKind
    location: str
    revision: str | None = None
    subfolder: str = ""


@dataclass(frozen=True, slots=True)
class ExpectedDigest:
    """The content hash that the hub's listing promises for a file."""

    algorithm: str  # "sha256" (large files) or "git-sha1" (git blob id of small ones)
    value: str
    source: str  # who promised: "hub listing" or "cache blob name"


@dataclass(frozen=True, slots=True)
class File:
    """One file of an artifact. `local` is None when it was listed but not fetched whole.

    `parts` are the ranges that were fetched of one that is too large; they lack what `not_fetched`
    stood in the way of.
    """

    path: str  # POSIX, relative to the artifact's root
    size: int  # bytes
    kind: FileKind
    local: Path | None
    expected: ExpectedDigest | None = None
    not_fetched: str = ""  # why `local` is None, or why not all parts are there
    parts: tuple[Part, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Subject:
    """What a piece of evidence is about. `name` is untrusted text; escape it when you show it."""

    kind: str  # "repository" | "file" | "field" | "tensor" | "module" | "adapter"
    file: str = ""
    name: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.name) if part) or self.kind


@dataclass(frozen=True, slots=True)
class Evidence:
    """A measured fact: a value with its unit about one subject. Never a judgement."""

    name: str
    subject: Subject
    value: Scalar
    unit: str = ""
    details: Mapping[str, Scalar] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that was not analysed, why, and what would change that.

    `failed` is true when it was asked for and could not be done: the scan is then incomplete
    (exit code 3). It is false for what nobody asked for, such as probes without `--base`.
    `ask` then is what asks for it, as one types it, where that is all it takes.
    """

    what: str  # a file, a module or an analysis
    reason: str
    failed: bool
    hint: str = ""
    detector: str = ""
    ask: str = ""


@dataclass(frozen=True, slots=True)
class Artifact:
    """Files at one fixed state of one source; `problems` are files that could not come along."""

    ref: Ref
    name: str  # what reports call it
    files: tuple[File, ...]
    commit: str | None = None  # the resolved hub commit
    endpoint: str | None = None
    problems: tuple[Skipped, ...] = ()
    evidence: tuple[Evidence, ...] = ()  # facts that only the source can see (links, renames)
    own_names: tuple[str, ...] = ()  # what a loader may call it: ids on the hub, absolute paths


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What the report says about one file: how far we looked, and the hash of what we read."""

    path: str
    size: int
    kind: FileKind
    sha256: Sha256 | None
    status: str  # "analysed" | "partly analysed" | "not analysed" | "hashed only" | "listed only"
    verified: bool | None  # content equals the hub's promise; None: nothing to compare with


@dataclass(frozen=True, slots=True)
class AdapterSummary:
    """What one adapter in the artifact is, for the head of a report."""

    path: str  # folder inside the artifact, "" for its root
    weights: str  # the weight file analysed, "" when there is none
    peft_type: str
    base_model: str | None
    modules: int
    tensors: int
    parameters: int
    ranks: Mapping[str, int]  # rank -> number of modules
    frobenius_norm: float | None  # of all low-rank deltas together, scaled


@dataclass(frozen=True, slots=True)
class Suppression:
    """That somebody accepted a finding, as it stands in a file of theirs."""

    reason: str
    owner: str
    expires: str  # the last day, 2027-01-31


@dataclass(frozen=True, slots=True)
class Finding:
    """A judged fact: one rule and all the evidence that met it, worst first."""

    rule: str
    title: str
    severity: Severity
    confidence: Confidence
    message: str
    next_step: str
    count: int  # subjects that met the rule
    evidence: tuple[Evidence, ...]  # worst first, at most `rules.EVIDENCE_SHOWN`
    context: Mapping[str, str] = field(default_factory=dict)
    identifiers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    suppression: Suppression | None = None  # it then fails no run


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the scan looked at and what it did not."""

    inspected: tuple[str, ...]
    skipped: tuple[Skipped, ...]

    @property
    def complete(self) -> bool:
        """Return whether everything that was asked for was analysed."""
        return not any(item.failed for item in self.skipped)


@dataclass(frozen=True, slots=True)
class Report:
    """The whole answer for one target."""

    target: str
    name: str
    source: SourceKind
    commit: str | None
    files: tuple[FileRecord, ...]
    adapters: tuple[AdapterSummary, ...]
    findings: tuple[Finding, ...]  # worst first
    evidence: tuple[Evidence, ...]  # facts measured, whether or not a rule cared; see `counts`
    counts: Mapping[str, int]  # facts of each name, also those that `evidence` has no room for
    coverage: Coverage
    versions: Mapping[str, str]  # what decided the result: tool, detectors, rule set digest
    config_file: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run gave for all its targets: what reporters render."""

    reports: tuple[Report, ...]
    errors: tuple[tuple[str, AdapterscanError], ...]  # targets without a report, and why
    exit_code: int
    fail_on: Severity | None  # None: never
    notes: tuple[str, ...] = ()  # on the caller's own settings
