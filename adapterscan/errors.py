"""Every error that adapterscan raises on purpose.

    AdapterscanError                 anything below; has a `hint` that says what to do next
    ├── UsageError                   the caller asked for something impossible
    │   ├── BadReference             a target that is neither a path nor a hub reference
    │   ├── BadConfig                an unreadable or unknown setting of the caller's own
    │   ├── BadCalibration           a reference of adapters that cannot be used
    │   ├── BadFingerprint           fingerprints that cannot be used
    │   └── BadRule                  a rule file that cannot be used
    ├── SourceError                  the artifact could not be brought here
    │   ├── NotFound                 no such path, repository, revision or subfolder
    │   ├── AccessDenied             private, gated or disabled
    │   ├── RateLimited              the hub asked us to slow down
    │   ├── TooLarge                 more bytes than the caller allowed
    │   ├── Unreachable              network or server failure, or offline and not cached
    │   └── StorageError             the cache cannot be written (disk full, permissions)
    ├── RunnerProblem                the model cannot answer: not installed, no memory, no time
    ├── Stopped                      a process of ours that read the files was stopped, or died
    ├── NotApplicable                there is nothing that this analysis could look at
    └── FileProblem                  one file of the artifact cannot be analysed; names that file
        ├── Unreadable               cannot be opened, or is not a regular file
        ├── Malformed                its bytes contradict its format; has a `defect` code
        ├── LimitExceeded            a claim in it is larger than we are willing to follow
        ├── Unsupported              a format or variant that we do not read yet
        └── ChangedWhileReading      its bytes changed between two looks

`UsageError` ends the run with exit code 2. A `SourceError` ends one target. A `FileProblem` becomes
a `Skipped` in the report: what was found before it stays.
"""

from __future__ import annotations

#: What is said of a MemoryError, which is no defect of ours but a limit that holds.
NO_MEMORY = "needs more memory than adapterscan may take"
NO_MEMORY_HINT = (
    "honest adapters need less than 200 MB: treat it as hostile, or allow more with --memory"
)


class AdapterscanError(Exception):
    """Base of all our errors: a reason in one line, and a `hint` with the next step."""

    def __init__(self, reason: str, *, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class UsageError(AdapterscanError):
    """The caller asked for something impossible."""


class BadReference(UsageError):
    """A target that is neither an existing path nor a well-formed hub reference."""


class BadConfig(UsageError):
    """The caller's own configuration cannot be read or has an unknown setting."""


class BadCalibration(UsageError):
    """A file with a reference of adapters cannot be used."""


class BadFingerprint(UsageError):
    """A file with fingerprints of adapters cannot be used."""


class BadRule(UsageError):
    """A rule folder that cannot be used."""


class SourceError(AdapterscanError):
    """The artifact could not be brought here."""


class NotFound(SourceError):
    """No such path, repository, revision or subfolder."""


class AccessDenied(SourceError):
    """The repository is private, gated or disabled for this caller."""


class RateLimited(SourceError):
    """The hub asked us to slow down."""


class TooLarge(SourceError):
    """More bytes than the caller allowed."""


class Unreachable(SourceError):
    """The network or the server failed, or we are offline and the artifact is not cached."""


class StorageError(SourceError):
    """The download cache cannot be written."""


class RunnerProblem(AdapterscanError):
    """The model cannot answer: a library is missing, memory or time ran out, the base differs."""


class Stopped(AdapterscanError):
    """A process of ours that read strangers' files took too much time or memory, or died."""


class NotApplicable(AdapterscanError):
    """There is nothing that an analysis could look at: no failure, and no coverage either."""


class FileProblem(AdapterscanError):
    """One file of the artifact cannot be analysed. `path` is relative to the artifact."""

    def __init__(self, path: str, reason: str, *, hint: str = "") -> None:
        super().__init__(reason, hint=hint)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Unreadable(FileProblem):
    """The file cannot be opened, or is not a regular file."""


class Malformed(FileProblem):
    """The bytes contradict the format. `defect` is a stable code that rules can name."""

    def __init__(self, path: str, reason: str, *, defect: str, hint: str = "") -> None:
        super().__init__(path, reason, hint=hint)
        self.defect = defect


class LimitExceeded(FileProblem):
    """A size, count or depth claimed by the file is larger than we are willing to follow."""


class Unsupported(FileProblem):
    """A format or variant that we do not read yet."""


class ChangedWhileReading(FileProblem):
    """The bytes changed between two looks, so no statement about them would be true."""
