"""How unlike adapters of its kind an adapter is: a reference of statistics, and conformal p-values.

A reference holds a few dozen numbers for each of its adapters, no weights. An adapter is compared
with those of the nearest kind that has enough of them, and its p-value is the share of them, itself
included, that are at least as unlike the others as it is.

Sources: Vovk, Gammerman & Shafer 2005 (full conformal prediction: all scores are taken in the bag
that has the new adapter in it, so that under exchangeability p is valid whatever the score); Chen
et al. 2010 (oracle approximating shrinkage of a covariance).
Limits: a p-value says how unusual the statistics are among adapters of the reference, never that
the adapter is harmful; most backdoors are not unusual. It is valid where the adapter was made as
those of the reference were, which nobody knows of a stranger's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapterscan.errors import BadCalibration
from adapterscan.formats.peft import Adapter
from adapterscan.text import printable
from adapterscan.weighing.one_pass import Weighed

F64 = npt.NDArray[np.float64]

FORMAT = 1
BUILT_IN = Path(__file__).parent / "data" / "reference.json"
LIMIT = 64 << 20  # bytes of a reference file
#: Statistics of every ΔW, in logarithms, and what is taken of each over all modules.
STATISTICS = (
    "rms", "top_energy", "effective_rank", "participation", "kurtosis", "row_peak", "column_peak",
)  # fmt: skip
OVER_MODULES: Mapping[str, Callable[[F64], np.float64]] = {
    "mean": np.mean,
    "lowest": np.min,
    "highest": np.max,
    "spread": np.std,
}
FEATURES = tuple(f"{statistic} {how}" for statistic in STATISTICS for how in OVER_MODULES)
LEAST = 39  # members: with fewer no p-value can be as low as 2.5 %, which the rule asks for
FURTHEST_LOG = 1000.0  # of a statistic in a file
FURTHEST = 50.0  # robust standard deviations: beyond, further is no more unlike
SHOWN = 3  # features that are named
NOTE = 1000  # characters
#: Kinds of adapters, the nearest first: what members share with the adapter.
NEARNESS: tuple[tuple[str, ...], ...] = (
    ("base", "width", "peft_type", "modules", "ranks"),
    ("base", "width", "peft_type", "modules"),
    ("base", "width", "peft_type"),
    ("width", "peft_type"),
)
_RANKS = (4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, slots=True)
class Kind:
    """What adapters have in common that can be compared."""

    base: str  # as the config names it on the hub, in small letters; "" for a path or none
    width: int  # the commonest size of inputs and outputs of what is adapted
    peft_type: str
    modules: str  # the last names of what is adapted, sorted
    ranks: str  # bucket of the commonest rank of a ΔW: "5-8"

    def shared(self, other: Kind, fields: Iterable[str]) -> bool:
        """Whether two kinds agree in some fields."""
        return all(getattr(self, field) == getattr(other, field) for field in fields)


@dataclass(frozen=True, slots=True)
class Member:
    """One adapter of a reference. `values`: FEATURES, natural logarithms and their spread."""

    name: str
    sha256: str  # of its weight file
    kind: Kind
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """Adapters that others are compared with.

    `notes` say where they are from. `digests`: SHA-256 of the files that they were read from.
    """

    members: tuple[Member, ...] = ()
    notes: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()

    def joined(self, other: Reference) -> Reference:
        """Return both together, each weight file once."""
        known = {member.sha256: member for member in (*self.members, *other.members)}
        notes = dict.fromkeys((*self.notes, *other.notes))
        return Reference(tuple(known.values()), tuple(notes), (*self.digests, *other.digests))

    def near(self, member: Member) -> tuple[tuple[str, ...], list[Member]]:
        """Return the nearest kind that has enough members, without `member`, and those.

        Where none has enough: the furthest kind, and what there is.
        """
        others = [other for other in self.members if other.sha256 != member.sha256]
        found: list[Member] = []
        fields: tuple[str, ...] = ()
        for fields in NEARNESS:
            found = [other for other in others if other.kind.shared(member.kind, fields)]
            if len(found) >= LEAST:
                break
        return fields, found


@dataclass(frozen=True, slots=True)
class Standing:
    """How unlike others an adapter is. `most`: features that it stands out in, with their z."""

    p: float  # 1/(members + 1) to 1
    score: float  # squared Mahalanobis distance
    usual: float  # median of the others' scores
    members: int
    most: tuple[tuple[str, float], ...]


def described(adapter: Adapter, weighed: Weighed, name: str, sha256: str) -> Member | None:
    """Return an adapter as a member of a reference; None where it cannot be described by FEATURES.

    `name` says where it is from, `sha256` is of its weight file.
    """
    deltas = weighed.deltas
    values = features(deltas.column)
    if values is None:
        return None
    kind = Kind(
        _base(adapter.config.base_model),
        int(_commonest((*deltas.column("d_in"), *deltas.column("d_out")))),
        adapter.config.peft_type or "LORA",
        printable(", ".join(sorted({d.family.rpartition(".")[2] for d in adapter.deltas}))),
        bucket(int(_commonest(deltas.column("numerical_rank")))),  # not of columns of zeros
    )
    return Member(printable(name), sha256, kind, tuple(round(value, 5) for value in values))


def features(column: Callable[[str], F64]) -> tuple[float, ...] | None:
    """Return FEATURES of an adapter; `column` returns one statistic of all its modules, (n,).

    Over the modules that are changed: one that is left at zero has a size, and nothing else. None
    where none is changed, or where a statistic is no number.
    """
    found: list[float] = []
    for statistic in STATISTICS:
        values = column(statistic)
        values = values[values != 0.0]
        if not values.size or not np.isfinite(values).all():
            return None
        logs = np.log(values)
        found += [float(how(logs)) for how in OVER_MODULES.values()]
    return tuple(found)


def standing(member: Member, others: Sequence[Member]) -> Standing:
    """Return how unlike `others`, at least one, an adapter is.

    The smoothed conformal p-value, (#{> s} + U·#{= s})/(m + 1) with itself among the equals and at
    least its floor 1/(m + 1); U comes from the digest of its weights, so that it is the same again.
    """
    bag = np.array([*(other.values for other in others), member.values])
    scores, z = unlikeness(bag)
    own, rest = scores[-1], scores[:-1]
    lot = int(member.sha256[:13] or "0", 16) / 16**13
    ties = int((rest == own).sum()) + 1
    p = (int((rest > own).sum()) + lot * ties) / len(bag)
    order = np.argsort(-np.abs(z[-1]), kind="stable")[:SHOWN]
    return Standing(
        max(p, 1 / len(bag)),
        float(own),
        float(np.sort(rest)[(len(rest) - 1) // 2]),
        len(rest),
        tuple((FEATURES[i], float(z[-1, i])) for i in order),
    )


def unlikeness(bag: F64) -> tuple[F64, F64]:
    """Return squared Mahalanobis distances (n,) in a bag (n, features), and robust z (n, features).

    Symmetric in the bag: no row knows which one is new. Features that nearly all rows agree in are
    left in their own units.
    """
    middle = np.median(bag, 0)
    spread = np.median(np.abs(bag - middle), 0) / 0.6745
    z = ((bag - middle) / np.where(spread > 1e-9, spread, 1.0)).clip(-FURTHEST, FURTHEST)
    centred = z - z.mean(0)
    inverse = np.linalg.inv(shrunk_covariance(centred))
    return np.einsum("ij,jk,ik->i", centred, inverse, centred), z


def shrunk_covariance(centred: F64) -> F64:
    """Return the covariance of rows (n, p) of mean 0, shrunk towards a multiple of the identity.

    Source: Chen, Wiesel, Eldar & Hero 2010, eq. 23 (OAS). Always invertible.
    """
    n, p = centred.shape
    sample = centred.T @ centred / n
    scale = max(float(np.trace(sample)) / p, 1e-12)
    energy = float((sample**2).sum())
    above = (1 - 2 / p) * energy + (scale * p) ** 2
    below = (n + 1 - 2 / p) * (energy - scale**2 * p)
    rho = min(1.0, above / below) if below > 0 else 1.0
    rho = max(rho, 1e-6)
    shrunk: F64 = (1 - rho) * sample + rho * scale * np.eye(p)
    return shrunk


def bucket(rank: int) -> str:
    """Return the bucket that a rank is in: "1-4", "5-8", …, "129-"."""
    low = 1
    for high in _RANKS:
        if rank <= high:
            return f"{low}-{high}"
        low = high + 1
    return f"{low}-"


def _base(name: str | None) -> str:
    """Return a base model's name on the hub in small letters; "" for a path or none."""
    plain = (name or "").strip().casefold()
    parts = plain.split("/")
    named = len(parts) == 2 and all(parts) and not plain.startswith((".", "~")) and ":" not in plain
    return printable(plain) if named else ""


def _commonest(values: Iterable[float]) -> float:
    """Return the value that most have, of equals the smallest."""
    found, counts = np.unique(np.fromiter(values, np.float64), return_counts=True)
    return float(found[np.argmax(counts)])


@cache
def built_in() -> Reference:
    """Return the reference that comes with the package; empty where it was left out."""
    return read_reference(BUILT_IN) if BUILT_IN.is_file() else Reference()


def write_reference(reference: Reference) -> str:
    """Return the text of a reference file, a line for each member."""
    members = ",\n".join(
        f"  {json.dumps(asdict(member), ensure_ascii=False)}"
        for member in sorted(reference.members, key=lambda m: (m.name, m.sha256))
    )
    head = {"adapterscan-reference": FORMAT, "notes": reference.notes, "features": FEATURES}
    start = json.dumps(head, ensure_ascii=False, indent=1)[:-2]
    return f'{start},\n "members": [\n{members}\n ]\n}}\n'


def read_reference(path: Path) -> Reference:
    """Return the reference that a file has. Raises BadCalibration for anything else."""
    try:
        if path.stat().st_size > LIMIT:
            raise _bad(path, "is too large")
        data = path.read_bytes()
        table = json.loads(data)
        if table["adapterscan-reference"] != FORMAT or tuple(table["features"]) != FEATURES:
            raise _bad(path, "was written by another version of adapterscan")
        members = tuple(_member(item) for item in table["members"])
        notes = tuple(printable(note, NOTE) for note in table["notes"])
        return Reference(members, notes, (hashlib.sha256(data).hexdigest(),))
    except OSError as error:
        raise _bad(path, f"cannot be read ({error.strerror})") from error
    except (
        KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError,
    ) as error:  # fmt: skip
        raise _bad(path, "is no reference") from error


def _member(item: Mapping[str, Any]) -> Member:
    """Return a member of a file. Raises KeyError, TypeError or ValueError for what is none."""
    values = tuple(float(value) for value in item["values"])
    if len(values) != len(FEATURES) or not all(abs(value) <= FURTHEST_LOG for value in values):
        raise ValueError(item["name"])
    kind = Kind(**item["kind"])
    texts = (kind.base, kind.peft_type, kind.modules, kind.ranks, item["sha256"])
    if type(kind.width) is not int or not all(isinstance(text, str) for text in texts):
        raise TypeError(kind)
    bytes.fromhex(item["sha256"])
    return Member(printable(item["name"]), item["sha256"], kind, values)


def _bad(path: Path, why: str) -> BadCalibration:
    return BadCalibration(
        f"{printable(str(path))} {why}", hint="write one with: adapterscan calibrate DIR -o FILE"
    )
