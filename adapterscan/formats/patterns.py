"""Match the patterns that PEFT reads from a config, by the same engine, where it cannot hang us.

PEFT hands these patterns to Python's `re` (docs/threats.md), where `(a+)+$` against a module name
never returns. Linear engines refuse the lookaheads of honest patterns, and the `regex` package,
which has a time limit, can be made to take all memory while it compiles. So patterns that repeat or
group anything are matched by `re` in a child process with a memory limit, which is killed when it
falls silent. A pattern that does not come to an answer is a fact worth reporting.
"""

from __future__ import annotations

import json
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

PATTERN_LIMIT = 4096  # characters; the longest honest pattern seen has 600
SILENCE_SECONDS = 2.0  # for one pattern against CHUNK names; honest ones take milliseconds
MEMORY_BYTES = 96 << 20  # of the child; 50,000 long names take 60 MB there
STRIKES = 3  # after so many silent patterns the rest are given up as well
TOTAL_SECONDS = 15.0  # for all patterns of one config together
#: Patterns times names. PEFT compiles each pattern anew for each module, 20 times slower than we
#: do, so a config over this hangs its loader for minutes whatever its patterns are.
PAIRS_LIMIT = 5_000_000
CHUNK = 1000  # a multiple of eight
_ACTIVE = re.compile(r"[*+?{()|\[\\]")  # anything that repeats, groups, branches or escapes
_KEY_HEAD, _KEY_TAIL = r"(?:(.*\.)?(", r")$)[\s\S]*"

_CHILD = """
import json, re, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (@LIMIT@, @LIMIT@))
    resource.setrlimit(resource.RLIMIT_CPU, (@SECONDS@, @SECONDS@))  # should we be killed
except (ImportError, ValueError, OSError):
    pass
patterns, names = json.load(sys.stdin)
for index, pattern in patterns:
    try:
        match = re.compile(pattern).fullmatch
        for start in range(0, len(names), @CHUNK@):
            hits = sum(1 << i for i, name in enumerate(names[start:start + @CHUNK@]) if match(name))
            print(json.dumps([index, hex(hits), None]), flush=True)
        print(json.dumps([index, "0", "done"]), flush=True)
    except (re.error, OverflowError, RecursionError, MemoryError, ValueError) as error:
        print(json.dumps([index, "0", type(error).__name__]), flush=True)
"""


class Subset(Set[str]):
    """Some of the names that patterns were tried on: a bit for each.

    A config can have 10,000 patterns and a file 50,000 modules; sets would take a gigabyte.
    """

    __slots__ = ("_bits", "_places")

    def __init__(self, places: Mapping[str, int], bits: bytes = b"") -> None:
        self._places = places
        self._bits = bits.ljust(len(places) // 8 + 1, b"\0")

    def __contains__(self, name: object) -> bool:
        at = self._places.get(name)  # type: ignore[call-overload]  # any object may be asked for
        return at is not None and bool(self._bits[at >> 3] >> (at & 7) & 1)

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._places if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @classmethod
    def _from_iterable(cls, names: Iterable[str]) -> frozenset[str]:  # type: ignore[override]
        return frozenset(names)

    def moved(self, names: Mapping[str, str]) -> Subset:
        """Return the subset that has each key of `names` if this one has its value."""
        bits = bytearray(self._bits)
        for name, other in names.items():
            at = self._places[name]
            bits[at >> 3] = bits[at >> 3] & ~(1 << (at & 7)) | (other in self) << (at & 7)
        return Subset(self._places, bytes(bits))


@dataclass(frozen=True, slots=True)
class Matches:
    """The names that a pattern matches in full; `problem` says why the answer is not known."""

    names: Subset
    problem: str = ""  # "" | "timeout" | "too long" | "invalid: …"


def keyed(key: str) -> str:
    """Return the pattern by which PEFT looks a module up in `rank_pattern` and `alpha_pattern`.

    Source: peft 0.21.2, `utils/other.py`, `get_pattern_key`: `re.match` of `(.*\\.)?(key)$`. Put so
    that `fullmatch` agrees with it even when a key such as `layers)|(x` breaks out of its group.
    """
    return f"{_KEY_HEAD}{key}{_KEY_TAIL}"


def saved(entry: str) -> str:
    """Return the pattern that PEFT makes of an entry of `modules_to_save`, unescaped.

    Source: peft 0.21.2: `re.match` of `(^|.*\\.)entry($|\\..*)`, to leave such modules out.
    """
    return rf"(?:(^|.*\.){entry}($|\..*))[\s\S]*"


def layered(pattern: str) -> str:
    """Return the pattern that PEFT makes of `layers_pattern` to read a layer's number.

    Source: peft 0.21.2, `tuners/tuners_utils.py`: `re.match` of `(?:^|.*?\\.)pattern\\.(\\d+)\\.`.
    """
    return rf"(?:(?:^|.*?\.){pattern}\.(\d+)\.)[\s\S]*"


def is_active(text: str) -> bool:
    """Whether `text` as a pattern repeats, groups, branches or escapes: plain names cannot hang."""
    return bool(_ACTIVE.search(text.replace("\\.", "")))


def match_all(patterns: Sequence[str], names: Sequence[str]) -> Mapping[str, Matches]:
    """Return for each pattern the subset of `names` that `re.fullmatch` accepts.

    Takes milliseconds without a child for plain names, about 30 ms with one, and for hostile
    patterns at most TOTAL_SECONDS (and a little).
    """
    answers: dict[str, Matches] = {}
    risky: list[str] = []
    unique = list(dict.fromkeys(patterns))
    names = list(dict.fromkeys(names))
    places = {name: place for place, name in enumerate(names)}
    none = Subset(places)
    if len(unique) * len(names) > PAIRS_LIMIT:
        return {pattern: Matches(none, "timeout") for pattern in unique}
    for pattern in unique:
        if len(pattern) > PATTERN_LIMIT:
            answers[pattern] = Matches(none, "too long")
        elif is_active(_core(pattern)):
            risky.append(pattern)
        else:
            plain = re.compile(pattern).fullmatch
            found = (place for name, place in places.items() if plain(name))
            answers[pattern] = Matches(Subset(places, _bits(found, len(places))))
    strikes = 0
    deadline = time.monotonic() + TOTAL_SECONDS
    while risky and strikes < STRIKES and time.monotonic() < deadline:
        done = _run_child(risky, places, deadline)
        answers.update(done)
        risky = [pattern for pattern in risky if pattern not in done]
        if risky:
            answers[risky.pop(0)] = Matches(none, "timeout")
            strikes += 1
    return answers | {pattern: Matches(none, "timeout") for pattern in risky}


def _bits(places: Iterable[int], count: int) -> bytes:
    bits = bytearray(count // 8 + 1)
    for place in places:
        bits[place >> 3] |= 1 << (place & 7)
    return bytes(bits)


def _core(pattern: str) -> str:
    """Return what the config contributed to `keyed`: one leading `.*` of ours is harmless."""
    if pattern.startswith(_KEY_HEAD) and pattern.endswith(_KEY_TAIL):
        return pattern[len(_KEY_HEAD) : -len(_KEY_TAIL)]
    return pattern


def _run_child(
    patterns: Sequence[str], places: Mapping[str, int], deadline: float
) -> dict[str, Matches]:
    """Return answers in order up to the first pattern that hung or killed the child."""
    script = _CHILD.replace("@LIMIT@", str(MEMORY_BYTES)).replace("@CHUNK@", str(CHUNK))
    script = script.replace("@SECONDS@", str(2 * int(TOTAL_SECONDS)))
    child = subprocess.Popen(  # noqa: S603  our own interpreter and script; patterns are its input
        [sys.executable, "-I", "-S", "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=_pump, args=(child, lines), daemon=True)
    reader.start()
    answers: dict[str, Matches] = {}
    hits = bytearray()  # of the pattern that is being tried
    try:
        request = json.dumps([list(enumerate(patterns)), list(places)])
        threading.Thread(target=_feed, args=(child, request), daemon=True).start()
        while line := lines.get(timeout=_patience(deadline)):
            index, found, status = json.loads(line)
            if status is None:
                hits += int(found, 16).to_bytes(CHUNK // 8, "little")
                continue
            if status == "done":
                answers[patterns[index]] = Matches(Subset(places, bytes(hits)))
            else:
                answers[patterns[index]] = Matches(Subset(places), f"invalid: {status}")
            hits.clear()
    except queue.Empty:
        pass
    finally:
        child.kill()
        child.wait()
        reader.join()
        if child.stdout:
            child.stdout.close()
    return answers


def _patience(deadline: float) -> float:
    return max(0.0, min(SILENCE_SECONDS, deadline - time.monotonic()))


def _feed(child: subprocess.Popen[str], request: str) -> None:
    if child.stdin:
        try:
            child.stdin.write(request)
            child.stdin.close()
        except OSError:
            return  # the child died or was killed; its silence says so


def _pump(child: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    if child.stdout:
        for line in child.stdout:
            lines.put(line)
    lines.put("")
