"""Make a reference of adapters that the caller trusts: their statistics, no weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import PurePath

from adapterscan.calibration import LEAST, NEARNESS, Kind, Member, Reference, described
from adapterscan.model import Artifact, Skipped
from adapterscan.reading import Contents, read_files


def members(
    artifact: Artifact, *, workers: int = 2, progress: Callable[[str], None] = lambda _: None
) -> Iterator[Member | Skipped]:
    """Yield every adapter of `artifact` as a member of a reference, or why it is none."""
    contents, left_out = Contents(artifact), dict[str, Skipped]()
    for weighed in read_files(contents, workers=workers, progress=progress):
        if weighed is None:
            continue
        whole = weighed.weighed.deltas and not weighed.adapter.problems
        if not whole or weighed.weighed.skipped:
            why = "not all of its updates could be measured"
            left_out[weighed.file] = Skipped(weighed.file, why, failed=False)
        elif found := described(
            weighed.adapter,
            weighed.weighed,
            _name(artifact, weighed.file),
            contents.sha256(weighed.file),
        ):
            yield found
        else:
            left_out[weighed.file] = Skipped(
                weighed.file, "its updates are zero, or no numbers", failed=False
            )
    told = (item for item in (*artifact.problems, *contents.skipped) if item.failed)
    left_out |= {item.what: item for item in told}
    yield from left_out.values()


def _name(artifact: Artifact, file: str) -> str:
    """Return where an adapter is from, without the folders of this machine."""
    root = artifact.name
    return f"{root if artifact.commit else PurePath(root).name}/{file}"


def table(reference: Reference) -> list[dict[str, str | int]]:
    """Return a row for each kind of adapter: how many there are, and what they allow."""
    counts = Counter(member.kind for member in reference.members)
    return [
        {
            "base": kind.base or "?", "width": kind.width, "type": kind.peft_type,
            "modules": kind.modules, "ranks": kind.ranks, "adapters": count,
            "compared with": _enough(kind, counts),
        }
        for kind, count in sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    ]  # fmt: skip


def _enough(kind: Kind, counts: Counter[Kind]) -> str:
    """Return how many members adapters of a kind will be compared with, and what they share."""
    for fields in NEARNESS:
        found = sum(count for other, count in counts.items() if other.shared(kind, fields))
        if found >= LEAST:
            return f"{found} (same {', '.join(fields).replace('_', ' ')})"
    return f"too few, {LEAST} are needed"
