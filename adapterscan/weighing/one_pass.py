"""Weigh one weight file: hash it and measure every tensor in a single pass over its bytes.

The main thread reads the file in order; one thread hashes, others measure. A ΔW is measured as soon
as both of its factors have gone by. Memory is bounded whatever the file: what is in flight, and the
factors that wait for their partner, each have a budget. A factor that had to be let go is read
again and must have the digest that it had the first time.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import defaultdict, deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from adapterscan.formats.bit_sample import Bits, BitSample
from adapterscan.formats.deltas import FACTORED, Delta
from adapterscan.formats.reader import SEGMENT_BYTES, SourceFile
from adapterscan.formats.tensors import TensorInfo, numpy_dtype
from adapterscan.lowrank import (
    KURTOSIS_RANK,
    kurtosis_cost,
    working_bytes,
)
from adapterscan.model import Skipped
from adapterscan.text import plural, printable, size_text
from adapterscan.weighing.factors import (
    Storage,
    extra_bytes,
    measured_by_rank,
    update_of,
    why_not,
    work,
)
from adapterscan.weighing.plan import (
    DensePlan,
    FactorPlan,
    Range,
    Unit,
    cuts,
    factors,
    range_of,
)
from adapterscan.weighing.summaries import NONE, Summaries

#: What a pass holds beside the segments that it reads: a ΔW in work (its factors, and ten r×r
#: matrices), others in flight, factors that wait. Less of it, the more tensors there are to list.
ROOM_BYTES = 96 << 20
TENSOR_BYTES = 900
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
IN_FLIGHT_BYTES = 64 << 20
WAITING_BYTES = 32 << 20

NO_BITS = Bits()  # nothing was looked at
_BLOCK = 1 << 16  # elements widened at a time
_UNITS = 4096  # measured by one task
_REASONS = 50  # told apart


@dataclass(frozen=True, slots=True)
class DenseSummary:
    """A tensor that is not a factor of a ΔW: its size and what its values are."""

    elements: int
    nonfinite: int
    zeros: int
    square_sum: float


@dataclass(frozen=True, slots=True)
class Weighed:
    """What the pass leaves: by delta name, by tensor name, what could not be measured, bits."""

    deltas: Summaries
    dense: Mapping[str, DenseSummary]
    skipped: tuple[Skipped, ...]
    bits: Bits = NO_BITS


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
    return _Pass(file, tuple(tensors), deltas, workers).run()


def hash_only(file: SourceFile) -> None:
    """Read `file` to its end for its digest alone."""
    for _ in file.segments(list(range(SEGMENT_BYTES, file.size, SEGMENT_BYTES))):
        pass


class _Pass:
    def __init__(
        self,
        file: SourceFile,
        tensors: Sequence[TensorInfo],
        deltas: Iterable[Delta],
        workers: int,
    ) -> None:
        self.file = file
        self.room = max(SEGMENT_BYTES, ROOM_BYTES - TENSOR_BYTES * len(tensors))
        self.skips = _Skips()
        self.summaries = Summaries()
        self.dense_results: dict[str, DenseSummary] = {}
        self.dense_parts: dict[str, list[DenseSummary]] = defaultdict(list)
        self.deltas: list[Delta] = []  # grouped by the tensors that they share
        self.firsts = array("q")  # of each group
        self._choose(deltas)
        cost = sum(map(_kurtosis_cost, self.deltas))
        self.exact_to = EXACT_RANK if cost <= EXACT_COST else KURTOSIS_RANK
        self.factors = FactorPlan([self.deltas[first] for first in self.firsts])
        dense = self.factors.others(tensors)
        self.dense = DensePlan(dense)
        self.cuts = cuts(self.factors, dense, file.size)
        self.bits = BitSample(tensors)
        self.looked = bytearray(len(self.factors.starts))  # into its bits, by number of the range
        self.next = 0  # the first range of factors that has not gone by
        self.waiting: dict[int, Storage] = {}  # by number of the range
        self.waiting_bytes = 0
        self.let_go: dict[int, bytes] = {}
        largest = max((delta.rank for delta in self.deltas), default=0)
        self.inline = workers <= 1 or largest <= INLINE_RANK
        self.pool = ThreadPoolExecutor(max(1, workers), "measure")
        self.running: deque[tuple[int, Future[None]]] = deque()  # with the bytes they keep alive
        self.in_flight = 0

    def _choose(self, deltas: Iterable[Delta]) -> None:
        """Group deltas by the tensors they share, leaving out what is over our limits."""
        left = WORK_FLOOR + WORK_PER_BYTE * self.file.size
        for _, parts in groupby(deltas, lambda delta: [t.name for t in delta.tensors]):
            group = list(parts)
            reason = _over_limits(group[0], self.room)
            needed = len(group) * work(group[0])
            hint = "no honest adapter needs this; ask its author"
            if not reason and needed > left:
                reason = "over the limit of work for a file of this size: not measured"
                hint = "such ranks for such sizes are not trained; ask its author"
            if reason:
                self.skips.add(group[0].module, reason, hint)
            else:
                self.firsts.append(len(self.deltas))
                self.deltas += group
                left -= needed

    def run(self) -> Weighed:
        with self.pool:
            for start, view in self.file.segments(self.cuts):
                self._take_factors(start, view)
                self._take_dense(start, view)
                self._settle(len(view))
                del view  # the next segment needs the room
            self._drain(0)
        # Threads finish in any order; results must not depend on it.
        for name, parts in self.dense_parts.items():
            self.dense_results[name] = _merge(parts)
        tensors = {name: self.dense_results.pop(name) for name in sorted(self.dense_results)}
        for name, norm in self.summaries.of("frobenius"):
            if norm == NONE or not math.isfinite(norm):  # spectra and norms would pass over it
                self.skips.add(
                    name, "holds NaN or infinite values, or a scale that makes them: not measured",
                    "do not use it: ask the author for weights that are numbers",
                )  # fmt: skip
        return Weighed(self.summaries, tensors, self.skips.all(), self.bits.finish())

    def _take_factors(self, start: int, view: memoryview) -> None:
        plan, end = self.factors, start + len(view)
        while self.next < len(plan.starts) and plan.ends[self.next] <= end:
            place, low = self.next, plan.starts[self.next]
            size = plan.ends[place] - low
            self.next += 1
            if low < start:  # overlaps a range before it: cannot be seen whole
                self.skips.add(self.file.path, "has factors that overlap", "treat it as hostile")
                continue
            self.waiting[place] = view[low - start : low - start + size]
            self.waiting_bytes += size
            for index in plan.owners(place):
                plan.missing[index] -= 1
                if not plan.missing[index]:
                    self._start(index)

    def _start(self, index: int) -> None:
        plan, first = self.factors, self.firsts[index]
        after = self.firsts[index + 1] if index + 1 < len(self.firsts) else len(self.deltas)
        group = self.deltas[first:after]
        size = _working_bytes(group[0], self.exact_to)
        if size > self.room // 3:
            self._let_go(self.room - size, spare=plan.places(index))
        storages: dict[Range, Storage] = {}
        for place, tensor in zip(plan.places(index), factors(group[0]), strict=True):
            key = range_of(tensor)
            if key in storages:
                continue
            if place not in self.waiting:
                storages[key] = self.file.reread(*key, self.let_go[place])
            else:
                storages[key] = self.waiting[place]
            if not self.looked[place]:
                self.looked[place] = 1
                self.bits.factor(tensor, storages[key])
            plan.unused[place] -= 1
            if not plan.unused[place] and self.waiting.pop(place, None) is not None:
                self.waiting_bytes -= tensor.nbytes
        # a view of the current segment is paid for with the segment, in `_settle`
        size -= sum(len(item) for item in storages.values() if isinstance(item, memoryview))
        if group[0].rank <= INLINE_RANK:
            self._measure_group(group, storages)
        else:
            self._submit(size, partial(self._measure_group, group, storages))

    def _measure_group(self, group: list[Delta], storages: Mapping[Range, Storage]) -> None:
        for delta in group:
            try:
                with np.errstate(all="ignore"):  # overflow and NaN are results here
                    summary = update_of(delta, storages).summary(self.exact_to)
                self.summaries.add(delta.name, summary)
            except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
                self.skips.add(delta.name, f"cannot be measured ({error})", "")

    def _take_dense(self, start: int, view: memoryview) -> None:
        units = self.dense.until(start + len(view))
        while some := list(islice(units, _UNITS)):  # tasks for all: a file can have 100,000 units
            for low, high, tensor in some:
                if low >= start:
                    piece = view[low - start : high - start]
                    self.bits.other(tensor, piece, low - tensor.start)
            self._submit(0, partial(self._measure_dense, start, view, some))

    def _measure_dense(self, start: int, view: memoryview, units: Iterable[Unit]) -> None:
        for low, high, tensor in units:
            dtype = numpy_dtype(tensor.dtype)
            if low < start:
                self.skips.add(tensor.name, "overlaps another tensor", "", "tensor")
            elif dtype is None or dtype.kind == "c":
                reason = f"values of dtype {tensor.dtype} are not read"
                self.skips.add(tensor.name, reason, "", "tensor")
            else:
                usable = high - low - (high - low) % dtype.itemsize
                piece = np.frombuffer(view[low - start : low - start + usable], dtype=dtype)
                if tensor.nbytes > SEGMENT_BYTES:
                    self.dense_parts[tensor.name].append(_dense(piece))
                else:
                    self.dense_results[tensor.name] = _dense(piece)

    def _submit(self, size: int, task: Callable[[], None]) -> None:
        if self.inline:
            task()
            return
        self._drain(self._in_flight_limit() - size)
        self.running.append((size, self.pool.submit(task)))
        self.in_flight += size

    def _drain(self, limit: int) -> None:
        """Wait, oldest first, until what runs keeps no more than `limit` bytes alive."""
        while self.running and (self.in_flight > limit or limit <= 0 or self.running[0][1].done()):
            size, future = self.running.popleft()
            self.in_flight -= size
            future.result()

    def _in_flight_limit(self) -> int:
        return min(IN_FLIGHT_BYTES, self.room - self.waiting_bytes)

    def _let_go(self, limit: int, spare: Container[int] = ()) -> None:
        """Keep no more than `limit` bytes of the factors that wait: the others are read again."""
        for place in list(self.waiting):
            if self.waiting_bytes <= limit:
                return
            if place not in spare:
                storage = self.waiting.pop(place)
                self.let_go[place] = hashlib.blake2b(storage).digest()
                self.waiting_bytes -= len(storage)

    def _settle(self, length: int) -> None:
        """Let the segment's buffer go: copy the factors that wait on, within their budget."""
        self._let_go(min(WAITING_BYTES, self.room // 3))
        for place, storage in self.waiting.items():
            if isinstance(storage, memoryview):
                self.waiting[place] = bytes(storage)
        if self.running:
            # Any task may look at this segment, however small its part; the last one to end pays.
            size, future = self.running.pop()
            self.running.append((size + length, future))
            self.in_flight += length
        self._drain(self._in_flight_limit())


class _Skips:
    """What could not be measured, by reason: a file can have 50,000 such modules."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], tuple[str, int]] = {}  # first by name, how many
        self._lock = Lock()

    def add(self, name: str, reason: str, hint: str, noun: str = "module") -> None:
        with self._lock:
            key = reason, hint, noun
            if len(self._found) >= _REASONS and key not in self._found:
                key = "cannot be measured, for one of many reasons", "treat it as hostile", noun
            first, count = self._found.get(key, (name, 0))
            self._found[key] = min(first, name), count + 1

    def all(self) -> tuple[Skipped, ...]:
        found = []
        for (reason, hint, noun), (first, count) in self._found.items():
            more = f" and {plural(count - 1, f'more {noun}')}" if count > 1 else ""
            what = f"{printable(first, 80)}{more}"
            found.append(Skipped(what, reason, failed=True, hint=hint, detector="weighing"))
        return tuple(sorted(found, key=lambda item: (item.what, item.reason)))


def _kurtosis_cost(delta: Delta) -> int:
    if not measured_by_rank(delta):  # exact, whatever it is
        return 0
    return kurtosis_cost(*_sides(delta), delta.rank if delta.rank <= EXACT_RANK else KURTOSIS_RANK)


def _working_bytes(delta: Delta, exact_to: int) -> int:
    stored = sum(tensor.nbytes for tensor in factors(delta)) + extra_bytes(delta)
    if not measured_by_rank(delta):
        return stored
    return stored + working_bytes(delta.rank, exact_to, min(_sides(delta)))


def _sides(delta: Delta) -> tuple[int, int]:
    """Return the lengths of the factors: of all groups where several updates share them."""
    if delta.kind in FACTORED:
        return delta.b.shape[0], math.prod(delta.a.shape[1:])
    return delta.shape


def _over_limits(delta: Delta, room: int) -> str:
    if reason := why_not(delta):
        return reason
    needed = _working_bytes(delta, KURTOSIS_RANK)
    if needed > room:
        return f"needs {size_text(needed)} at once, over {size_text(room)}"
    return ""


def _dense(values: npt.NDArray[Any]) -> DenseSummary:
    """Look at `values` (n,) a block at a time: widened whole, they take eight times their size."""
    nonfinite, zeros, squares = 0, 0, []
    for start in range(0, values.size, _BLOCK):
        block = values[start : start + _BLOCK]
        wide = block.astype(np.float64)
        finite = np.isfinite(wide)
        odd = int(block.size - np.count_nonzero(finite))
        if odd:
            nonfinite += odd
            wide = np.where(finite, wide, 0.0)
        zeros += int(block.size - np.count_nonzero(block))
        with np.errstate(over="ignore"):
            squares.append(float(np.dot(wide, wide)))
    return DenseSummary(values.size, nonfinite, zeros, _total(squares))


def _merge(parts: list[DenseSummary]) -> DenseSummary:
    return DenseSummary(
        sum(part.elements for part in parts),
        sum(part.nonfinite for part in parts),
        sum(part.zeros for part in parts),
        _total(part.square_sum for part in parts),
    )


def _total(squares: Iterable[float]) -> float:
    """Sum exactly: threads finish in any order."""
    try:
        return math.fsum(squares)
    except OverflowError:
        return math.inf
