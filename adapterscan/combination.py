"""Scan adapters that are meant to be combined: each of them, and what they are together.

The sum is written as an adapter of its own and scanned as any other, with what its parts do to
each other among the facts. With probes, the sum is asked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from adapterscan.desk import Desk
from adapterscan.errors import AdapterscanError, NotApplicable
from adapterscan.events import Doing, Emit, Event
from adapterscan.formats.peft import Adapter
from adapterscan.model import Artifact, FileRecord, Ref, Report, Sha256, SourceKind
from adapterscan.rules.book import RuleBook
from adapterscan.scan import ScanOptions, observe, tell
from adapterscan.sources import open_folder
from adapterscan.together.combining import Method
from adapterscan.together.composing import Composition, compose
from adapterscan.together.side_by_side import Part, short_names

if TYPE_CHECKING:
    from adapterscan.probe import ProbeRequest


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """How to combine: a weight for each adapter, the method, and where to keep the result."""

    weights: tuple[float, ...]
    method: Method
    folder: Path | None = None  # None: nothing is kept


def merge(
    artifacts: Sequence[Artifact],
    rules: RuleBook,
    request: MergeRequest,
    *,
    options: ScanOptions | None = None,
    probing: ProbeRequest | None = None,
    config_file: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Report]:
    """Yield the report of each adapter, then that of what they are together.

    Raises, after the reports of the parts, NotApplicable where a target has no adapter or several,
    and what `compose` raises.
    """
    desk, reports = Desk(rules, config_file), list[Report]()

    def hear(event: Event) -> None:
        tell(event, progress)
        if report := desk.hear(event):
            reports.append(report)

    problem: AdapterscanError | None = None
    with place_of(request) as folder:
        try:
            combine(artifacts, request, folder, hear, options or ScanOptions(), probing)
        except AdapterscanError as error:
            problem = error
    yield from reports
    if problem is not None:
        raise problem


@contextmanager
def place_of(request: MergeRequest) -> Iterator[Path]:
    """Yield where the combination is written: a folder that is kept, or one for the while."""
    if request.folder:
        yield request.folder
        return
    with tempfile.TemporaryDirectory(prefix="adapterscan-") as temporary:
        yield Path(temporary)


def combine(
    artifacts: Sequence[Artifact],
    request: MergeRequest,
    folder: Path,
    emit: Emit,
    options: ScanOptions,
    probing: ProbeRequest | None = None,
) -> None:
    """Tell `emit` what is in each adapter, then in what they are together, written to `folder`.

    Raises as `merge`.
    """
    names = short_names(artifacts)
    parts: list[Part] = []
    for name, artifact in zip(names, artifacts, strict=True):
        found: list[Adapter] = []
        digests: dict[str, Sha256 | None] = {}

        def hear(event: Event, digests: dict[str, Sha256 | None] = digests) -> None:
            if isinstance(event, FileRecord):
                digests[event.path] = event.sha256
            emit(event)

        observe(artifact, hear, options=options, keep=found.append)
        parts += _part(name, artifact, found, digests)
    whole = [part.name for part in parts]
    if len(parts) < len(artifacts):
        missing = next(name for name in names if name not in whole)
        raise NotApplicable(
            f"nothing was put together: {missing} is not one adapter with updates that were read",
            hint="name the folder of one: org/name@revision:subfolder",
        )
    made = _composed(parts, request, folder, lambda text: emit(Doing(text)))
    artifact = open_folder(Ref(str(folder), SourceKind.FOLDER, str(folder)))
    name = title(whole, request)
    text = str(folder) if request.folder else name  # what is kept can be opened again
    artifact = replace(
        artifact, ref=replace(artifact.ref, text=text), name=name, evidence=made.evidence,
        problems=made.skipped, own_names=(),
    )  # fmt: skip
    observe(artifact, emit, options=options, probing=probing)


def _composed(
    parts: Sequence[Part], request: MergeRequest, folder: Path, progress: Callable[[str], None]
) -> Composition:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return compose(parts, request.weights, request.method, folder, progress)
    except AdapterscanError:
        raise
    except OSError as error:  # parts are read as files that raise errors of ours
        raise NotApplicable(
            f"{folder} cannot be written ({error.strerror or error})",
            hint="make room, or choose another place",
        ) from error
    except Exception as error:  # input is hostile: the reports of the parts stand
        raise NotApplicable(
            f"could not be put together ({type(error).__name__})",
            hint="this is a defect of adapterscan: please report it with the adapters' names",
        ) from error


def title(names: Sequence[str], request: MergeRequest) -> str:
    """Return what the combination is called: `0.5·one + other`, with the method if not cat."""
    text = ""
    for name, weight in zip(names, request.weights, strict=True):
        sign = (" − " if text else "−") if weight < 0 else " + " if text else ""
        text += f"{sign}{'' if abs(weight) == 1.0 else f'{abs(weight):g}·'}{name}"
    method = request.method
    how = "" if method.exact else f" by {method.name}"
    pruned = f" at density {method.density:g}" if method.density < 1.0 else ""
    return f"{text}{how}{pruned}"


def _part(
    name: str, artifact: Artifact, found: Sequence[Adapter], digests: Mapping[str, Sha256 | None]
) -> Iterator[Part]:
    """Yield the one adapter of a target, if it has one that was read whole."""
    for adapter in found if len(found) == 1 else ():
        if adapter.deltas and (sha256 := digests.get(adapter.weights.path)):
            yield Part(name, artifact, adapter, sha256)
