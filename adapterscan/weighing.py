"""Weigh one weight file: hash it and measure every tensor in a single pass over its bytes.

The main thread reads the file in order; one thread hashes, others measure. A ΔW is measured as soon
as both of its factors have gone by. Memory is bounded whatever the file: what is in flight, and the
factors that wait for their partner, each have a budget. A factor that had to be let go is read
again and must have the digest that it had the first time.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from adapterscan.formats.deltas import Delta
from adapterscan.formats.reader import SEGMENT_BYTES, SourceFile
from adapterscan.formats.tensors import FLOAT_DTYPES, TensorInfo, as_array, numpy_dtype
from adapterscan.lowrank import KURTOSIS_RANK, DeltaSummary, LowRank, kurtosis_cost
from adapterscan.model import Skipped
from adapterscan.text import plural, printable, size_text

FACTOR_LIMIT = 64 << 20  # bytes of one factor as stored
WORKING_LIMIT = 160 << 20  # bytes of all factors of a ΔW with its r×r matrices, ten at a time
RANK_LIMIT = 1024  # the r×r work is cubic; the largest ranks published are 512
#: The r×r work of all deltas together, Σ rank³: a floor (about 12 s of one core) and so much for
#: each byte of the file. Real adapters of rank r and width d need r²/4d, under 64; factors of rank
#: 1024 and width 1 do not, and 160 kB of them would take a minute.
WORK_FLOOR = 1 << 33
WORK_PER_BYTE = 64
#: The kurtosis of every ΔW is exact up to EXACT_RANK while that costs an adapter no more than this
#: many multiply-adds (about 0.2 s of one core).
EXACT_COST = 10**10
EXACT_RANK = 64
#: Up to this rank a module is measured faster than threads can take turns at the interpreter.
INLINE_RANK = 32
IN_FLIGHT_BYTES = 32 << 20
WAITING_BYTES = 32 << 20

Range = tuple[int, int]  # start and length in the file
Storage = memoryview | bytes | bytearray


@dataclass(frozen=True, slots=True)
class DenseSummary:
    """A tensor that is not a factor of a ΔW: its size and what its values are."""

    elements: int
    nonfinite: int
    zeros: int
    square_sum: float


@dataclass(frozen=True, slots=True)
class Weighed:
    """What the pass leaves: by delta name, by tensor name, and what could not be measured."""

    deltas: Mapping[str, DeltaSummary]
    dense: Mapping[str, DenseSummary]
    skipped: tuple[Skipped, ...]


def weigh(
    file: SourceFile,
    tensors: Iterable[TensorInfo],
    deltas: Iterable[Delta],
    *,
    workers: int,
) -> Weighed:
    """Read `file` to its end and measure `deltas` and all other `tensors`.

    Afterwards `file.sha256` is set. Raises ChangedWhileReading when the bytes moved under us; what
    goes wrong in one module or tensor becomes a Skipped and the pass goes on.
    """
    return _Pass(file, tuple(tensors), tuple(deltas), workers).run()


def hash_only(file: SourceFile) -> None:
    """Read `file` to its end for its digest alone."""
    for _ in file.segments(list(range(SEGMENT_BYTES, file.size, SEGMENT_BYTES))):
        pass


class _Pass:
    def __init__(
        self,
        file: SourceFile,
        tensors: tuple[TensorInfo, ...],
        deltas: tuple[Delta, ...],
        workers: int,
    ) -> None:
        self.file = file
        self.skipped: list[Skipped] = []
        self.delta_results: dict[str, DeltaSummary] = {}
        self.dense_results: dict[str, list[DenseSummary]] = defaultdict(list)
        self.modules = self._measurable(deltas)
        cost = sum(_kurtosis_cost(delta) for group in self.modules for delta in group)
        self.exact_to = EXACT_RANK if cost <= EXACT_COST else KURTOSIS_RANK
        factors = {_range(tensor) for group in self.modules for tensor in _factors(group[0])}
        self.users: dict[Range, set[int]] = defaultdict(set)
        for index, group in enumerate(self.modules):
            for key in {_range(tensor) for tensor in _factors(group[0])}:
                self.users[key].add(index)
        self.factors = sorted(factors)
        self.dense = [tensor for tensor in tensors if _range(tensor) not in factors]
        self.missing = [{_range(tensor) for tensor in _factors(group[0])} for group in self.modules]
        self.waiting: dict[Range, Storage] = {}
        self.waiting_bytes = 0
        self.let_go: dict[Range, bytes] = {}
        ranks = [delta.rank for group in self.modules for delta in group]
        self.inline = workers <= 1 or max(ranks, default=0) <= INLINE_RANK
        self.pool = ThreadPoolExecutor(max(1, workers), "measure")
        self.running: deque[tuple[int, Future[None]]] = deque()  # with the bytes they keep alive
        self.in_flight = 0

    def _measurable(self, deltas: tuple[Delta, ...]) -> list[list[Delta]]:
        """Group deltas by the tensors they share, leaving out what is over our limits."""
        groups: dict[tuple[str, str], list[Delta]] = defaultdict(list)
        for delta in deltas:
            groups[delta.a.name, delta.b.name].append(delta)
        kept, over = [], []
        room = WORK_FLOOR + WORK_PER_BYTE * self.file.size
        for group in groups.values():
            reason, work = _over_limits(group[0]), len(group) * group[0].rank ** 3
            if reason:
                self._skip(group[0].module, reason, "no honest adapter needs this; ask its author")
            elif work > room:
                over.append(group[0].module)
            else:
                kept.append(group)
                room -= work
        self._skip_all(
            over, "over the limit of work for a file of this size: not measured",
            "such ranks for such sizes are not trained; ask its author",
        )  # fmt: skip
        return kept

    def run(self) -> Weighed:
        with self.pool:
            dense = deque(sorted(_units(self.dense), key=lambda unit: unit[:2]))
            factors = deque(self.factors)
            measured = sorted([*self.factors, *((low, high - low) for low, high, _ in dense)])
            cuts = sorted({*_edges(measured), *self._gaps(measured)})
            for start, view in self.file.segments(cuts):
                self._take_factors(start, view, factors)
                self._take_dense(start, view, dense)
                self._settle(len(view))
                del view  # the next segment needs the room
            self._drain(0)
        # Threads finish in any order; results must not depend on it.
        deltas = {name: self.delta_results[name] for name in sorted(self.delta_results)}
        tensors = {name: _merge(self.dense_results[name]) for name in sorted(self.dense_results)}
        # spectra and norms would pass over what is not a number in silence
        self._skip_all(
            [name for name, summary in deltas.items() if not _is_finite(summary)],
            "holds NaN or infinite values, or a scale that makes them: not measured",
            "do not use it: ask the author for weights that are numbers",
        )  # fmt: skip
        skipped = sorted(self.skipped, key=lambda item: (item.what, item.reason))
        return Weighed(deltas, tensors, tuple(skipped))

    def _skip_all(self, names: Sequence[str], reason: str, hint: str) -> None:
        """Say it once for the file: it can have 50,000 such modules."""
        if names:
            more = f" and {plural(len(names) - 1, 'more module')}" if len(names) > 1 else ""
            self._skip(f"{printable(names[0], 80)}{more}", reason, hint)

    def _gaps(self, measured: Iterable[Range]) -> Iterator[int]:
        """Cut where nothing is measured, so that no segment grows, and nowhere else."""
        at = 0
        for start, length in [*measured, (self.file.size, 0)]:
            yield from range(at + SEGMENT_BYTES, start, SEGMENT_BYTES)
            at = max(at, start + length)

    def _take_factors(self, start: int, view: memoryview, factors: deque[Range]) -> None:
        end = start + len(view)
        while factors and factors[0][0] + factors[0][1] <= end:
            key = factors.popleft()
            if key[0] < start:  # overlaps a range before it: cannot be seen whole
                self._skip(self.file.path, "has factors that overlap", "treat it as hostile")
                continue
            self.waiting[key] = view[key[0] - start : key[0] - start + key[1]]
            self.waiting_bytes += key[1]
            for index in sorted(self.users[key]):
                self.missing[index].discard(key)
                if not self.missing[index]:
                    self._start(index)

    def _start(self, index: int) -> None:
        group = self.modules[index]
        storages: dict[Range, Storage] = {}
        for tensor in _factors(group[0]):
            key = _range(tensor)
            if key not in self.waiting:
                storages[key] = self.file.reread(*key, self.let_go[key])
            else:
                storages[key] = self.waiting[key]
            self.users[key].discard(index)
            if not self.users[key] and self.waiting.pop(key, None) is not None:
                self.waiting_bytes -= key[1]
        # a view of the current segment is paid for with the segment, in `_settle`
        size = sum(len(item) for item in storages.values() if isinstance(item, bytes | bytearray))
        self._submit(size, lambda: self._measure_group(group, storages))

    def _measure_group(self, group: list[Delta], storages: Mapping[Range, Storage]) -> None:
        for delta in group:
            try:
                with np.errstate(all="ignore"):  # overflow and NaN are results here
                    summary = _low_rank(delta, storages).summary(self.exact_to)
                self.delta_results[delta.name] = summary
            except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
                self._skip(delta.name, f"cannot be measured ({error})", "")

    def _take_dense(
        self, start: int, view: memoryview, dense: deque[tuple[int, int, TensorInfo]]
    ) -> None:
        end = start + len(view)
        pieces: list[Callable[[], None]] = []  # one task for all: a file can have 100,000 of them
        while dense and dense[0][1] <= end:
            low, high, tensor = dense.popleft()
            dtype = numpy_dtype(tensor.dtype)
            if low < start:
                self._skip(printable(tensor.name), "overlaps another tensor", "")
            elif dtype is None or dtype.kind == "c":
                reason = f"values of dtype {tensor.dtype} are not read"
                self._skip(printable(tensor.name), reason, "")
            else:
                piece = view[low - start : high - start]
                pieces.append(_dense_task(self.dense_results[tensor.name], piece, dtype))
        if pieces:
            self._submit(0, lambda: _do_all(pieces))

    def _submit(self, size: int, task: Callable[[], None]) -> None:
        if self.inline:
            task()
            return
        self._drain(IN_FLIGHT_BYTES - size)
        self.running.append((size, self.pool.submit(task)))
        self.in_flight += size

    def _drain(self, limit: int) -> None:
        """Wait, oldest first, until what runs keeps no more than `limit` bytes alive."""
        while self.running and (self.in_flight > limit or limit <= 0 or self.running[0][1].done()):
            size, future = self.running.popleft()
            self.in_flight -= size
            future.result()

    def _settle(self, length: int) -> None:
        """Let the segment's buffer go: copy the factors that wait on, within their budget."""
        while self.waiting_bytes > WAITING_BYTES:
            key = next(iter(self.waiting))
            self.let_go[key] = hashlib.blake2b(self.waiting.pop(key)).digest()
            self.waiting_bytes -= key[1]
        for key, storage in self.waiting.items():
            if isinstance(storage, memoryview):
                self.waiting[key] = bytes(storage)
        if self.running:
            # Any task may look at this segment, however small its part; the last one to end pays.
            size, future = self.running.pop()
            self.running.append((size + length, future))
            self.in_flight += length
        self._drain(IN_FLIGHT_BYTES)

    def _skip(self, what: str, reason: str, hint: str) -> None:
        self.skipped.append(Skipped(what, reason, failed=True, hint=hint, detector="weighing"))


def _is_finite(summary: DeltaSummary) -> bool:
    return summary.frobenius is not None and math.isfinite(summary.frobenius)


def _range(tensor: TensorInfo) -> Range:
    return tensor.start, tensor.nbytes


def _factors(delta: Delta) -> Iterator[TensorInfo]:
    yield delta.a
    yield delta.b
    if delta.diag is not None:
        yield delta.diag


def _kurtosis_cost(delta: Delta) -> int:
    d_out, d_in = delta.b.shape[0], math.prod(delta.a.shape[1:])
    return kurtosis_cost(d_out, d_in, delta.rank if delta.rank <= EXACT_RANK else KURTOSIS_RANK)


def _over_limits(delta: Delta) -> str:
    if delta.rank > RANK_LIMIT:
        return f"has rank {delta.rank:,}, over the limit of {RANK_LIMIT:,}"
    for tensor in _factors(delta):
        if tensor.nbytes > FACTOR_LIMIT:
            return f"has a factor of {size_text(tensor.nbytes)}, over {size_text(FACTOR_LIMIT)}"
        dtype = numpy_dtype(tensor.dtype)
        if dtype is None or tensor.dtype not in FLOAT_DTYPES:
            return f"has a factor of dtype {tensor.dtype}, which holds no plain floats"
    needed = sum(tensor.nbytes for tensor in _factors(delta)) + 10 * 8 * delta.rank**2
    if needed > WORKING_LIMIT:
        return f"needs {size_text(needed)} at once, over {size_text(WORKING_LIMIT)}"
    return ""


def _edges(ranges: Iterable[Range]) -> Iterator[int]:
    for start, length in ranges:
        yield start
        yield start + length


def _units(tensors: Iterable[TensorInfo]) -> Iterator[tuple[int, int, TensorInfo]]:
    """Cut each tensor's storage into pieces that fit a segment, at element borders."""
    seen: set[Range] = set()
    for tensor in tensors:
        if _range(tensor) in seen:
            continue
        seen.add(_range(tensor))
        for low in range(tensor.start, tensor.end, SEGMENT_BYTES):
            yield low, min(low + SEGMENT_BYTES, tensor.end), tensor


def _low_rank(delta: Delta, storages: Mapping[Range, Storage]) -> LowRank:
    """Shape the factors as `delta.kind` says. Raises ValueError where they cannot be."""
    a, b = (as_array(tensor, storages[_range(tensor)]) for tensor in (delta.a, delta.b))
    part, parts, rank = delta.part, delta.parts, delta.rank
    if delta.kind == "conv":
        a, b = a.reshape(rank, -1), b.reshape(-1, rank)
    elif delta.kind == "experts":  # B is rank-major, expert-minor
        a = a.reshape(parts, rank, -1)[part]
        b = b.reshape(b.shape[0], rank, parts)[:, :, part]
    elif delta.kind == "merged":
        rows = b.shape[0] // parts
        a = a[part * rank : (part + 1) * rank]
        b = b[part * rows : (part + 1) * rows, :, 0]
    if delta.diag is not None:
        b = b.astype(np.float64) * as_array(delta.diag, storages[_range(delta.diag)]).reshape(-1)
    return LowRank(a, b, delta.scaling)


def _dense_task(
    results: list[DenseSummary], piece: memoryview, dtype: np.dtype[Any]
) -> Callable[[], None]:
    def measure() -> None:
        usable = len(piece) - len(piece) % dtype.itemsize
        results.append(_dense(np.frombuffer(piece[:usable], dtype=dtype)))

    return measure


def _do_all(tasks: Iterable[Callable[[], None]]) -> None:
    for task in tasks:
        task()


def _dense(values: npt.NDArray[Any]) -> DenseSummary:
    wide = values.astype(np.float64)
    finite = np.isfinite(wide)
    nonfinite = int(values.size - np.count_nonzero(finite))
    if nonfinite:
        wide = np.where(finite, wide, 0.0)
    zeros = int(values.size - np.count_nonzero(values))
    with np.errstate(over="ignore"):
        return DenseSummary(values.size, nonfinite, zeros, float(np.dot(wide, wide)))


def _merge(parts: list[DenseSummary]) -> DenseSummary:
    return DenseSummary(
        sum(part.elements for part in parts),
        sum(part.nonfinite for part in parts),
        sum(part.zeros for part in parts),
        math.fsum(part.square_sum for part in parts),  # exact: threads finish in any order
    )
