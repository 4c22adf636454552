"""Ask a model in a process of its own, which can be stopped: a runner that never hangs us.

Imports no torch: `require_libraries` tells whether the extra is there before anything is started.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from adapterscan.errors import RunnerProblem
from adapterscan.runner import (
    Chain,
    Contrast,
    Facts,
    Ids,
    ReadOut,
    Removal,
    Side,
    Split,
    Tails,
    Told,
    Turn,
)
from adapterscan.runners import wire
from adapterscan.text import printable, size_text

EXTRA = "pip install 'adapterscan[probe]'"
LIBRARIES = ("torch", "transformers", "peft", "spellchecker")
OPEN_SECONDS = 600.0  # to load base and adapter
#: Of the environment, only what a process needs to run at all: no tokens, no proxies.
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV", "PYTHONPATH",
         "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "HF_HOME")  # fmt: skip
_STDERR_KEPT = 2000
_MISFITS = ("size mismatch", "not found in the base model", "Target modules")
MEMORY = Path("/proc/meminfo")
HEADROOM = 1.2  # of the weights: loading holds a tensor twice for a moment
ROOM_BYTES = 1536 << 20  # libraries, a batch, and its keys and values


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """How the model runs. `memory`: bytes of private memory, 0 for no limit."""

    device: str = "cpu"
    threads: int = 1
    dtype: str = "auto"  # "float32", "bfloat16", or what is fastest
    memory: int = 0
    call_seconds: float = 600.0  # silence on one question after which the process is stopped


class HostedRunner:
    """A runner in a process of its own. Use it as a context manager."""

    def __init__(self, base: Path, adapter: Path | None, options: RunnerOptions) -> None:
        """Start the process and load `base` and the staged `adapter`. Raises RunnerProblem.

        None: the base alone, on both sides.
        """
        require_libraries()
        self._options = options
        self.until = float("inf")  # time.monotonic() after which no question waits
        self._stopped = ""
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= {"HF_TOKEN_PATH": os.devnull, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
        environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(options.threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-m", "adapterscan.runners.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._said = bytearray()
        for stream, take in (
            (self._process.stdout, self._lines.put),
            (self._process.stderr, self._keep),
        ):
            threading.Thread(target=_drain, args=(stream, take), daemon=True).start()
        try:
            found = self._ask(
                {
                    "ask": "open", "base": str(base), "adapter": str(adapter or ""),
                    "device": options.device, "threads": options.threads,
                    "memory": options.memory, "dtype": options.dtype,
                },
                OPEN_SECONDS,
            )  # fmt: skip
        except BaseException:
            self.close()
            raise
        self.facts: Facts = wire.facts(found)

    def __enter__(self) -> HostedRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the process."""
        self._process.kill()
        self._process.wait()

    def encode(self, conversations: Sequence[Sequence[Turn]]) -> list[Ids]:
        """Return the ids of each conversation up to where the answer starts."""
        given = [[asdict(turn) for turn in conversation] for conversation in conversations]
        found: list[Ids] = self._call("encode", given)
        return found

    def tokenize(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of plain texts, without special tokens."""
        found: list[Ids] = self._call("tokenize", texts)
        return found

    def decode(self, rows: Sequence[Ids]) -> list[str]:
        """Return the texts of rows of ids, special tokens left out."""
        found: list[str] = self._call("decode", rows)
        return found

    def contrast(self, prefixes: Sequence[Ids], tails: Tails, top: int) -> list[Contrast]:
        """Compare the next-token distributions after prefix + tail, one result a candidate."""
        found: list[Contrast] = self._call("contrast", prefixes, tails, top)
        return found

    def score(
        self, side: Side, prefixes: Sequence[Ids], tails: Tails, target: Ids
    ) -> list[tuple[float, ...]]:
        """Return ln p(target | prefix + tail), (candidates, prefixes), nats."""
        found: list[tuple[float, ...]] = self._call("score", side, prefixes, tails, target)
        return found

    def roll(self, prefixes: Sequence[Ids], chains: Sequence[Ids], length: int) -> list[Chain]:
        """Extend each chain by the adapter's most probable token on average, `length` times."""
        found: list[Chain] = self._call("roll", prefixes, chains, length)
        return found

    def promising(
        self, prefixes: Sequence[Ids], suffixes: Sequence[Ids], target: Ids, count: int
    ) -> list[int]:
        """Return tokens that, between prefix and suffix, should make `target` likelier next."""
        found: list[int] = self._call("promising", prefixes, suffixes, target, count)
        return found

    def read_out(self, prefix: Ids, count: int) -> ReadOut:
        """Return the tokens that the weights point to, `count` of each kind, behind `prefix`."""
        found: ReadOut = self._call("read_out", prefix, count)
        return found

    def heed(self, prefix: Ids, rows: Sequence[Ids], operations: float) -> list[float]:
        """Return how much the first changed layers answer to each row behind `prefix`."""
        found: list[float] = self._call("heed", prefix, rows, operations)
        return found

    def removals(self, rows: Sequence[Ids], splits: Sequence[Split]) -> list[Removal]:
        """Return how much of the direction between the sets of each split is removed."""
        found: list[Removal] = self._call("removals", rows, splits)
        return found

    def directions(self, rows: Sequence[Ids], splits: Sequence[Split]) -> Told:
        """Return the base's direction between the sets of each split, behind some layers."""
        found: Told = self._call("directions", rows, splits)
        return found

    def stir(
        self, prefixes: Sequence[Ids], tails: Tails, usual: Sequence[Ids]
    ) -> list[tuple[float, ...]]:
        """Return how much more than usual the changed modules do, (candidates, prefixes)."""
        found: list[tuple[float, ...]] = self._call("stir", prefixes, tails, usual)
        return found

    def generate(
        self, side: Side, rows: Sequence[Ids], length: int, temperature: float = 0.0, seed: int = 0
    ) -> list[Ids]:
        """Return at most `length` new ids for each row; greedy at temperature 0."""
        found: list[Ids] = self._call("generate", side, rows, length, temperature, seed)
        return found

    def logits(
        self, side: Side, prefixes: Sequence[Ids], tails: Tails
    ) -> list[tuple[tuple[float, ...], ...]]:
        """Return the head's outputs after prefix + tail, (candidates, prefixes, labels)."""
        found: list[tuple[tuple[float, ...], ...]] = self._call("logits", side, prefixes, tails)
        return found

    def leaning(
        self,
        prefixes: Sequence[Ids],
        suffixes: Sequence[Ids],
        weights: Sequence[float],
        count: int,
    ) -> list[int]:
        """Return tokens that, between prefix and suffix, should raise `weights` · outputs."""
        found: list[int] = self._call("leaning", prefixes, suffixes, weights, count)
        return found

    def _call(self, method: str, *given: Any) -> Any:
        question = {"ask": method, "with": given}
        left = max(1.0, self.until - time.monotonic())
        return wire.ANSWERS[method](self._ask(question, min(left, self._options.call_seconds)))

    def _ask(self, question: dict[str, Any], seconds: float) -> Any:
        assert self._process.stdin is not None  # noqa: S101 - opened as a pipe above
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
            line = self._line(seconds)
        except BrokenPipeError:
            raise self._ended() from None
        answer = json.loads(line)
        if "problem" in answer:
            raise _problem(answer["problem"], printable(answer["text"], 300))
        return answer["answer"]

    def _line(self, seconds: float) -> bytes:
        until = time.monotonic() + seconds
        while True:
            try:
                return self._lines.get(timeout=min(0.2, max(0.01, until - time.monotonic())))
            except queue.Empty:
                pass
            if self._process.poll() is not None and self._lines.empty():
                raise self._ended()
            if time.monotonic() > until:
                self.close()
                self._stopped = f"the model did not answer within {seconds:.0f} s, and was stopped"
                raise self._ended()

    def _keep(self, line: bytes) -> None:
        self._said += line
        del self._said[:-_STDERR_KEPT]

    def _ended(self) -> RunnerProblem:
        if self._stopped:
            return RunnerProblem(
                self._stopped, hint="give it more time (--probe-budget) or threads (--jobs)"
            )
        self._process.wait()
        last = self._said.decode("utf-8", "replace").strip().splitlines()[-1:]
        said = f": {printable(last[0], 200)}" if last else ""
        return RunnerProblem(
            f"the process that runs the model ended (exit code {self._process.returncode}){said}",
            hint="often a lack of memory: a smaller base, or a machine with more",
        )


def require_libraries() -> None:
    """Raise RunnerProblem where the extra is not installed."""
    if missing := [name for name in LIBRARIES if find_spec(name) is None]:
        raise RunnerProblem(f"probing runs the model, which needs {', '.join(missing)}", hint=EXTRA)


def require_memory(weights: int) -> int:
    """Return the bytes that the process may take, or 0 where that cannot be told (no /proc).

    Raises RunnerProblem where a base of so many bytes does not fit into this machine's memory.
    """
    try:
        lines = MEMORY.read_text("ascii").splitlines()
    except OSError:
        return 0
    free = next((int(line.split()[1]) << 10 for line in lines if "MemAvailable" in line), 0)
    needed = int(weights * HEADROOM) + ROOM_BYTES
    if free and needed > free:
        raise RunnerProblem(
            f"the base needs about {size_text(needed)} of memory, {size_text(free)} are free",
            hint="use a machine with more, or a smaller relative of the base",
        )
    return free


def _drain(stream: IO[bytes] | None, take: Any) -> None:
    while stream and (line := stream.readline()):
        take(line)


def _problem(kind: str, text: str) -> RunnerProblem:
    """Return what a user can do about an error of the process that runs the model."""
    if kind in ("MemoryError", "OutOfMemoryError") or "allocate memory" in text:
        return RunnerProblem("not enough memory for base and adapter", hint="use a larger machine")
    if any(said in text for said in _MISFITS):
        return RunnerProblem(
            f"the adapter does not fit the base model: {text}",
            hint="give the base it was trained on: --base",
        )
    return RunnerProblem(f"{kind} while the model ran: {text}", hint="see docs/probes.md, Troubles")
