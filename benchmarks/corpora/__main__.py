"""`python -m benchmarks.corpora`: every scanner on every sample, then `docs/corpora.md`.

Answers are kept in `results/`; a scanner or a group that is not asked for keeps those it has.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from benchmarks.corpora import page, results
from benchmarks.corpora.corpus import ADAPTERS, samples
from benchmarks.corpora.fetched import BESIDE
from benchmarks.corpora.results import Row
from benchmarks.corpora.sample import Sample
from benchmarks.corpora.scanners import SCANNERS, answers, chosen, environments
from benchmarks.speed import machine
from benchmarks.speed.venvs import ROOT, versions

_PARTS = 8  # of the samples, each with a process of the scanner
_HOME = Path.home() / ".cache" / "adapterscan-corpora"


def main() -> None:
    """Measure, keep the answers, and write the page."""
    options = argparse.ArgumentParser(prog="benchmarks.corpora", description=__doc__)
    options.add_argument("--home", type=Path, default=_HOME, help="where peers are installed")
    options.add_argument("--only", nargs="*", default=[], choices=[one.name for one in SCANNERS])
    options.add_argument("--group", default="", help="only groups whose name begins so")
    options.add_argument("--jobs", type=int, default=2, help="scanners side by side")
    given = options.parse_args()
    home = given.home.resolve()
    pythons = environments(home)
    wanted = [one for one in samples(home) if one.group.startswith(given.group)]
    kept = results.read_rows() if given.group or given.only else {}
    rows = {one.key: results.renewed(one, kept.get(one.key)) for one in wanted}
    rows = {**kept, **rows} if given.group else rows
    about = _about(pythons)
    with _written(wanted) as files:
        asked = [(one, part) for part in range(_PARTS) for one in chosen(given.only)]
        with ThreadPoolExecutor(given.jobs) as pool:
            told = pool.map(
                lambda task: list(
                    answers(task[0], pythons[task[0].name], files[task[1] :: _PARTS])
                ),
                asked,
            )
            for (scanner, part), some in zip(asked, told, strict=True):
                for one, answer in zip(wanted[part::_PARTS], some, strict=True):
                    rows[one.key].answers[scanner.name] = answer
                results.write(about, rows.values())
        for scanner in chosen(given.only):
            _tell(scanner.name, [rows[one.key] for one in wanted])
    (ROOT / "docs" / "corpora.md").write_text(page.page(), "utf-8")


def _about(pythons: Mapping[str, Path]) -> dict[str, object]:
    """Return what decides the answers: versions, the commit, what was not at hand."""
    absent = [
        str(path.relative_to(ROOT.parent)) for path in (BESIDE, ADAPTERS) if not path.is_dir()
    ]
    return {
        "command": "python -m benchmarks.corpora", "date": date.today().isoformat(),
        "commit": machine.commit(ROOT), "machine": machine.describe(), "absent": absent,
        "versions": {
            one.name: versions(pythons[one.name].parent)[one.name] for one in SCANNERS
        },
    }  # fmt: skip


@contextmanager
def _written(wanted: Sequence[Sample]) -> Iterator[list[Path]]:
    """Write each sample into a folder of its own: scanners look at what lies beside a file."""
    with tempfile.TemporaryDirectory(prefix="corpora-") as folder:
        files = []
        for number, one in enumerate(wanted):
            place = Path(folder) / str(number)
            place.mkdir()
            (place / one.file).write_bytes(one.data)
            if one.config:
                (place / "adapter_config.json").write_bytes(one.config)
            files.append(place / one.file)
        yield files


def _tell(name: str, rows: Sequence[Row]) -> None:
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        verdicts = counts.setdefault(row.truth, {})
        verdict = row.answers[name].verdict
        verdicts[verdict] = verdicts.get(verdict, 0) + 1
    print(name, json.dumps(counts), file=sys.stderr)


if __name__ == "__main__":
    main()
