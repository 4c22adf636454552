"""Tell where the time of one scan goes, step by step in one process. Prints JSON, milliseconds.

Run as a module by the benchmark, in the environment that is timed. It does what
`adapterscan scan FOLDER --format json` does; the interpreter's own start is not in it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from importlib import import_module


class _Clock:
    def __init__(self) -> None:
        self.steps: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self.steps[step] = round((now - self.last) * 1e3, 1)
        self.last = now


def main(folder: str) -> dict[str, float]:
    """Return milliseconds by step. An import counts where it comes first."""
    clock = _Clock()
    import typer

    clock.lap("import typer")
    from adapterscan.cli import app

    clock.lap("import the command line")
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    group.commands["scan"].make_context("scan", [folder, "--format", "json"])
    clock.lap("typer: build the commands, parse (imports pydantic)")
    import_module("numpy")
    import_module("ml_dtypes")
    clock.lap("import numpy, ml_dtypes")
    import_module("adapterscan.config")
    from adapterscan.sources import HubOptions, open_artifact, parse_ref

    clock.lap("import settings, sources")
    from adapterscan.rules.judging import load_rules

    clock.lap("import rules")
    book = load_rules(())
    clock.lap("load rules")
    from adapterscan.reading import read

    clock.lap("import reading, formats, kernel")
    from adapterscan.detectors import BUILT_IN
    from adapterscan.rules.docket import Docket
    from adapterscan.scan import scan

    clock.lap("import scan, detectors")
    artifact = open_artifact(parse_ref(folder, revision=None), HubOptions())
    clock.lap("list files")
    contents = read(artifact, workers=len(os.sched_getaffinity(0)))
    clock.lap("read, hash and measure")
    docket = Docket(book)
    docket.add(contents.evidence)
    for detector in BUILT_IN:
        for weighed in contents.adapters:
            docket.add(detector.each(contents, weighed))
        docket.add(detector.run(contents))
    docket.findings()
    clock.lap("detectors and rules")
    from adapterscan.model import Outcome
    from adapterscan.reporters.json_report import render_json

    clock.lap("import reporter")
    report = replace(scan(replace(artifact, files=()), book), evidence=docket.evidence())
    clock.last = time.perf_counter()  # that was only to have a report
    "".join(render_json(Outcome((report,), (), 0, None)))
    clock.lap("render JSON")
    return clock.steps


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
