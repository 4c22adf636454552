"""Scan adapters that are meant to be combined: each of them, and what they are together.

The sum is written as an adapter of its own and scanned as any other, with what its parts do to
each other among the facts. With probes, the sum is asked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from adapterscan.errors import AdapterscanError, NotApplicable
from adapterscan.formats.peft import Adapter
from adapterscan.model import Artifact, Ref, Report, Sha256, SourceKind
from adapterscan.rules.judging import RuleBook
from adapterscan.scan import ScanOptions, scan
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
    run = partial(scan, rules=rules, options=options, config_file=config_file, progress=progress)
    parts: list[Part] = []
    for name, artifact in zip(short_names(artifacts), artifacts, strict=True):
        found: list[Adapter] = []
        report = run(artifact, keep=found.append)
        parts += _part(name, artifact, found, report)
        yield report
    whole = [part.name for part in parts]
    if len(parts) < len(artifacts):
        missing = next(n for n in short_names(artifacts) if n not in whole)
        raise NotApplicable(
            f"nothing was put together: {missing} is not one adapter with updates that were read",
            hint="name the folder of one: org/name@revision:subfolder",
        )
    with tempfile.TemporaryDirectory(prefix="adapterscan-") as temporary:
        folder = request.folder or Path(temporary)
        made = _composed(parts, request, folder, progress)
        artifact = open_folder(Ref(str(folder), SourceKind.FOLDER, str(folder)))
        name = title(whole, request)
        text = str(folder) if request.folder else name  # what is kept can be opened again
        artifact = replace(
            artifact, ref=replace(artifact.ref, text=text), name=name, evidence=made.evidence,
            problems=made.skipped, own_names=(),
        )  # fmt: skip
        yield run(artifact, probing=probing)


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
    name: str, artifact: Artifact, found: Sequence[Adapter], report: Report
) -> Iterator[Part]:
    """Yield the one adapter of a target, if it has one that was read whole."""
    digests = {record.path: record.sha256 for record in report.files}
    for adapter in found if len(found) == 1 else ():
        sha256: Sha256 | None = digests.get(adapter.weights.path)
        if adapter.deltas and sha256:
            yield Part(name, artifact, adapter, sha256)
