"""Say what was measured of every ΔW as heat maps, and which modules stand out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from adapterscan.model import Evidence, Report, Scalar
from adapterscan.reporters.html.grid import Grid, grid, layer_of, modules_of
from adapterscan.reporters.html.heat import HeatMap, heat_map
from adapterscan.reporters.html.words import number

FILES = 3  # adapters of one target that are drawn
TABLE = 1000  # modules in the table under the pictures
_TOLD = 12  # modules that stand out, in the list

#: Of `delta.statistics`: where the number is, what the tab says, what a high value means.
_STATISTICS = (
    ("frobenius", "size ‖ΔW‖", "a high value is a large update"),
    ("rms", "size per weight", "a high value is a large update for the module's shape"),
    ("top_energy", "top energy", "share of the strongest direction in the energy"),
    ("top_share", "top share", "share of the strongest direction, less sharply"),
    ("stable_rank", "stable rank", "directions that carry the update, by energy"),
    ("effective_rank", "effective rank", "directions that carry the update, by entropy"),
    ("participation", "participation", "directions that carry the update, by fourth powers"),
    ("entropy", "entropy", "1 is a flat spectrum"),
    ("kurtosis", "kurtosis", "3 is a bell curve; a high value is an update in few entries"),
    ("row_peak", "row peak", "largest share of the energy in one output"),
    ("column_peak", "column peak", "largest share of the energy in one input"),
)
_BASE = (
    ("value", "‖ΔW‖/‖W‖", "size beside the base's weight"),
    ("top_ratio", "σ₁(ΔW)/σ₁(W)", "strongest direction beside the base's"),
    ("shift", "moved singular values", "by how much leading singular values of the base move"),
    ("intruders", "new directions", "leading directions that are unlike all of the base's"),
    ("left", "writes to the base's", "share that writes to the base's leading directions"),
    ("right", "reads from the base's", "share that reads from the base's leading directions"),
)
_SUM = (
    ("cosine", "cosine", "lowest of two parts; −1 is opposed, 1 the same", (-1.0, 1.0)),
    ("lost", "energy that cancels", "1 cancels, 0 leaves alone, −1 is doubled", (-1.0, 1.0)),
    ("growth", "growth of σ₁", "the sum's strongest direction over the largest of a part", None),
    ("value", "size of the sum", "‖Σw·ΔW‖", None),
)


@dataclass(frozen=True, slots=True)
class Heat:
    """The heat maps of one adapter with the table of their values."""

    key: str
    title: str
    file: str
    rows: tuple[str, ...]
    maps: tuple[HeatMap, ...]
    outliers: tuple[Evidence, ...]  # furthest first
    more_outliers: int
    columns: tuple[str, ...]
    cells: tuple[tuple[str, tuple[str, ...]], ...]  # module, a text for each column
    more_cells: int
    left_out: int

    @property
    def first(self) -> int:
        """Return which map is shown first: where something stands out."""
        return next((i for i, drawn in enumerate(self.maps) if drawn.marked), 0)


def heats(report: Report, key: str) -> Iterator[Heat]:
    """Yield the heat maps of a report: of ΔW, beside the base, and of a sum."""
    outliers = _by_file(report, ("delta.outlier",))
    broken = _by_file(report, ("delta.zero", "delta.nonfinite"))
    measured = _by_file(report, ("delta.statistics",))
    files = list(dict.fromkeys((*measured, *broken)))
    for index, file in enumerate(files[:FILES]):
        facts = [*measured.get(file, ()), *broken.get(file, ())]
        yield _statistics(facts, outliers.get(file, ()), f"{key}w{index}", file)
    for index, (file, facts) in enumerate(_first(_by_file(report, ("base.module",)))):
        yield _compared(facts, f"{key}b{index}", "Beside the base's weights", file, _BASE)
    if together := [item for item in report.evidence if item.name == "sum.module"]:
        yield _compared(together, f"{key}s", "What the parts do to each other", "", _SUM)


def called(statistic: str) -> str:
    """Return what a statistic is called on the page."""
    return next((label for field, label, _ in _STATISTICS if field == statistic), statistic)


def adapters_left_out(report: Report) -> int:
    """Return how many adapters were measured and not drawn."""
    return max(0, len(_by_file(report, ("delta.statistics",))) - FILES)


def _statistics(facts: Sequence[Evidence], found: Sequence[Evidence], key: str, file: str) -> Heat:
    place = grid(sorted(modules_of(facts)))
    marks: dict[str, dict[str, str]] = defaultdict(dict)
    for item in found:
        why = f"stands out, z {number(item.value)}, expected {number(item.details.get('expected'))}"
        marks[str(item.details.get("statistic"))][item.subject.name] = why
    drawn = []
    for field, label, about in _STATISTICS:
        values = {item.subject.name: _value(item, field) for item in facts}
        known = marks.get(field, {})
        drawn.append(heat_map(place, values, known, key=f"{key}{field}", label=label, about=about))
    worst = sorted(found, key=_distance)
    return Heat(
        key, "Every ΔW, by kind and layer", file, place.rows, tuple(drawn),
        tuple(worst[:_TOLD]), max(0, len(worst) - _TOLD),
        *_table(facts, [(field, label) for field, label, *_ in _STATISTICS]), place.left_out,
    )  # fmt: skip


def _compared(
    facts: Sequence[Evidence],
    key: str,
    title: str,
    file: str,
    columns: Iterable[tuple[object, ...]],
) -> Heat:
    place: Grid = grid(sorted(modules_of(facts)))
    shown = [c for c in columns if any(_value(item, str(c[0])) is not None for item in facts)]
    drawn = []
    for field, label, about, *bounds in shown:
        values = {
            item.subject.name: value
            for item in facts
            if (value := _value(item, str(field))) is not None
        }
        drawn.append(
            heat_map(
                place,
                values,
                {},
                key=f"{key}{field}",
                label=str(label),
                about=str(about),
                bounds=(-1.0, 1.0) if bounds and bounds[0] else None,
            )
        )
    table = _table(facts, [(str(field), str(label)) for field, label, *_ in shown])
    return Heat(key, title, file, place.rows, tuple(drawn), (), 0, *table, place.left_out)


def _table(
    facts: Sequence[Evidence], columns: Sequence[tuple[str, str]]
) -> tuple[tuple[str, ...], tuple[tuple[str, tuple[str, ...]], ...], int]:
    ordered = sorted(facts, key=lambda item: (layer_of(item.subject.name), item.subject.name))
    rows = tuple(
        (item.subject.name, tuple(number(_value(item, field)) for field, _ in columns))
        for item in ordered[:TABLE]
    )
    return tuple(label for _, label in columns), rows, max(0, len(facts) - TABLE)


def _value(item: Evidence, field: str) -> Scalar:
    """Return a statistic of a fact; a module without one that is finite has none."""
    if item.name == "delta.nonfinite":
        return None
    if item.name == "delta.zero":
        return 0.0 if field in ("frobenius", "rms") else None
    return item.value if field in ("value", "frobenius") else item.details.get(field)


def _by_file(report: Report, names: tuple[str, ...]) -> Mapping[str, list[Evidence]]:
    found: dict[str, list[Evidence]] = defaultdict(list)
    for item in report.evidence:
        if item.name in names:
            found[item.subject.file].append(item)
    return found


def _first(found: Mapping[str, list[Evidence]]) -> list[tuple[str, list[Evidence]]]:
    return list(found.items())[:FILES]


def _distance(item: Evidence) -> tuple[float, str]:
    size = abs(item.value) if isinstance(item.value, (int, float)) else 0.0
    return -size, item.subject.name
