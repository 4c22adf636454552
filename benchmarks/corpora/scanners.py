"""The scanners that are compared: how their users call them, and what their answer means."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.corpora.server import UNCAUGHT
from benchmarks.speed.venvs import ROOT, make

LIMIT = 60  # seconds for one file
#: "found": its alarm, by its exit code. "noted": something below its alarm. "incomplete": no alarm,
#: and it says that it did not see everything, or nothing. "clean": nothing, and nothing missing.
Verdict = Literal["found", "noted", "incomplete", "clean", "crash", "hang"]


@dataclass(frozen=True, slots=True)
class Scanner:
    """One command line. `judge` reads its exit code and what it printed."""

    name: str
    requirements: tuple[str, ...]
    entry: str
    command: tuple[str, ...]
    judge: Callable[[int, str], tuple[Verdict, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one scanner said of one file, and in words or rule ids what it saw."""

    verdict: Verdict
    ended: str
    seconds: float
    said: str = ""


def environments(home: Path) -> Mapping[str, Path]:
    """Return the interpreter of each scanner; peers are installed under `home` on first use."""
    ours = Path(sys.executable)
    return {
        scanner.name: make(home / scanner.name, *scanner.requirements) / "python"
        if scanner.requirements
        else ours
        for scanner in SCANNERS
    }


def answers(scanner: Scanner, python: Path, files: Sequence[Path]) -> Iterator[Answer]:
    """Yield what `scanner` says of each file, in order."""
    command = (str(python), str(Path(__file__).with_name("server.py")), scanner.entry, str(LIMIT))
    with subprocess.Popen(
        (*command, *scanner.command),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, **_QUIET}, cwd=ROOT,
    ) as server:  # fmt: skip
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(str(files[0])) + "\n")
        for path in files:
            server.stdin.write(json.dumps(str(path)) + "\n")
            server.stdin.flush()
            yield _answer(scanner, json.loads(server.stdout.readline()))


def _answer(scanner: Scanner, told: Mapping[str, Any]) -> Answer:
    ended, seconds, output = told["ended"], told["seconds"], told["output"]
    if ended == "timeout":
        return Answer("hang", ended, seconds)
    if ended.startswith("signal") or ended == f"exit {UNCAUGHT}":
        last = output.strip().splitlines()[-1:] or [""]
        return Answer("crash", ended, seconds, last[0][:160])
    verdict, said = scanner.judge(int(ended.removeprefix("exit ")), output)
    return Answer(verdict, ended, seconds, said[:300])


def _ours(code: int, output: str) -> tuple[Verdict, str]:
    reports = _json(output).get("reports", ())
    found = [item for report in reports for item in report["findings"]]
    rules = [f"{item['rule']} ({item['severity']})" for item in found]
    said = ", ".join(rule for rule in rules if "(info)" not in rule)
    levels: Mapping[int, Verdict] = {1: "found", 3: "incomplete"}
    return levels.get(code, "noted" if said else "clean"), said


def _picklescan(code: int, output: str) -> tuple[Verdict, str]:
    lines = [line for line in output.splitlines() if "import" in line]
    said = "; ".join(lines[:3])
    if code == 0:
        nothing = "Scanned files: 0" in output
        noted = re.search(r"Suspicious globals: [1-9]", output)
        return "noted" if noted else "incomplete" if nothing else "clean", said
    return {1: "found", 2: "incomplete"}.get(code, "crash"), said  # type: ignore[return-value]


def _modelscan(code: int, output: str) -> tuple[Verdict, str]:
    report = _json(output)
    issues = [f"{i['operator']} ({i['severity']})" for i in report.get("issues", ())]
    errors = [str(item.get("category")) for item in report.get("errors", ())]
    verdict: Verdict = {0: "clean", 1: "found", 2: "incomplete", 3: "incomplete"}.get(code, "crash")  # type: ignore[assignment]
    return verdict, ", ".join(issues[:4] or errors[:2])


def _fickling(code: int, output: str) -> tuple[Verdict, str]:
    verdict: Verdict = {0: "clean", 1: "found", 2: "incomplete"}.get(code, "crash")  # type: ignore[assignment]
    return verdict, " ".join(output.split())[:160]


def _modelaudit(code: int, output: str) -> tuple[Verdict, str]:
    report = _json(output)
    issues = [
        f"{item.get('rule_code') or item.get('message', '')[:40]} ({item.get('severity')})"
        for item in report.get("issues", ())
        if item.get("severity") not in ("debug", "info")
    ]
    verdict: Verdict = {0: "clean", 1: "found", 2: "incomplete"}.get(code, "crash")  # type: ignore[assignment]
    return verdict, ", ".join(dict.fromkeys(issues))


def _adaptersentry(code: int, output: str) -> tuple[Verdict, str]:
    verdict: Verdict = {0: "clean", 1: "incomplete", 2: "found"}.get(code, "crash")  # type: ignore[assignment]
    return verdict, " ".join(output.split())[:160]


def _json(output: str) -> dict[str, Any]:
    start = output.find("{")
    try:
        found = json.JSONDecoder().raw_decode(output[start:])[0] if start >= 0 else {}
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}


#: No telemetry, no colour, no network where an option says so.
_QUIET = {
    "NO_COLOR": "1", "NO_ANALYTICS": "1", "PROMPTFOO_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1", "CI": "1", "COLUMNS": "2000", "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}  # fmt: skip

SCANNERS: tuple[Scanner, ...] = (
    Scanner(
        "adapterscan", (), "adapterscan.cli:main",
        ("adapterscan", "scan", "--format", "json", "FILE"), _ours,
    ),
    Scanner(
        "picklescan", ("picklescan==1.0.5",), "picklescan.cli:main",
        ("picklescan", "--path", "FILE"), _picklescan,
    ),
    Scanner(
        "modelscan", ("modelscan==0.8.8",), "modelscan.cli:main",
        ("modelscan", "scan", "-p", "FILE", "-r", "json"), _modelscan,
    ),
    # it imports typing_extensions below Python 3.12 without asking for it
    Scanner(
        "fickling", ("fickling==0.1.12", "typing_extensions"), "fickling.__main__:main",
        ("fickling", "--check-safety", "--print-results", "FILE"), _fickling,
    ),
    Scanner(
        "modelaudit", ("modelaudit==0.2.54",), "modelaudit.__main__:_run",
        ("modelaudit", "scan", "--format", "json", "--no-cache", "FILE"), _modelaudit,
    ),
    Scanner(
        "adaptersentry", ("adaptersentry==2.0.2",), "adaptersentry.cli.main:main",
        ("adaptersentry", "scan", "FILE"), _adaptersentry,
    ),
)  # fmt: skip


def chosen(names: Iterable[str]) -> tuple[Scanner, ...]:
    """Return the scanners of those names, all for none."""
    wanted = set(names)
    return tuple(scanner for scanner in SCANNERS if not wanted or scanner.name in wanted)
