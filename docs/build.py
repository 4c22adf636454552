"""Write what the docs take from the code: `python docs/build.py`, or `--check` to compare only.

Pages of the rules, the command line's help, what the corpora benchmark kept, the run that the
README opens with, which module may import what, and which config fields reach what.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from adapterscan.formats.peft_sinks import SINKS  # noqa: E402  after the path is set
from adapterscan.rules.judging import load_rules  # noqa: E402
from adapterscan.rules.pages import index_page, rule_page  # noqa: E402
from benchmarks.corpora import page as corpora  # noqa: E402
from fixtures.demo import SCENES, run_scene, served  # noqa: E402

COMMANDS = (
    (),
    *((name,) for name in "scan merge compare hook report diff baseline".split()),
    *((name,) for name in "replay calibrate rules explain".split()),
    ("base", "build"),
)
#: Folders that hold nothing but generated pages; what is left over in them is removed.
OWNED = ("docs/rules",)
ARCHITECTURE = "docs/architecture.md"
SINKS_PAGE = "docs/config-sinks.md"
WIDTH = 118  # of a line of the pages' prose
_RUN = re.compile(r"(<!-- run: scan (\S+) -->\n)```console\n.*?```(?=\n<!-- end -->)", re.DOTALL)
_SINKS = re.compile(r"(<!-- sinks -->\n).*?(?=<!-- end -->)", re.DOTALL)
_IMPORTS = re.compile(r"(<!-- imports: (layers|torch) -->\n).*?(?=<!-- end -->)", re.DOTALL)


def pages(root: Path) -> Mapping[str, str]:
    """Return every generated file by its path under `root`."""
    rules = load_rules()
    return {
        **{f"docs/rules/{rule.id}.md": rule_page(rule) for rule in rules},
        "docs/rules/README.md": index_page(rules),
        "docs/cli.md": cli_page(),
        SINKS_PAGE: with_sinks((root / SINKS_PAGE).read_text("utf-8")),
        "docs/corpora.md": corpora.page(),
        "README.md": with_runs((root / "README.md").read_text("utf-8")),
        ARCHITECTURE: with_imports((root / ARCHITECTURE).read_text("utf-8")),
    }


def cli_page() -> str:
    """Return the help of every command, as it is printed 100 columns wide."""
    lines = ["# Command line", "", "Generated from `adapterscan … --help`.", ""]
    for command in COMMANDS:
        title = " ".join(("adapterscan", *command))
        lines += [f"## {title}", "", "```text", _help(command).strip(), "```", ""]
    return "\n".join(lines)


def with_runs(text: str) -> str:
    """Return `text` with each `<!-- run: scan NAME -->` block filled by running that demo scene."""
    scenes = {scene.repository: scene for scene in SCENES}

    def filled(match: re.Match[str]) -> str:
        with served() as hub, tempfile.TemporaryDirectory() as cache:
            said = run_scene(scenes[match[2]], hub.url, cache, capture=True).stdout
        return f"{match[1]}```console\n$ adapterscan scan {match[2]}\n{said.rstrip()}\n```"

    return _RUN.sub(filled, text)


def with_imports(text: str) -> str:
    """Return `text` with each `<!-- imports: … -->` block filled from what `lint-imports` checks.

    `layers`: who may import whom; `torch`: the modules that import it.
    """
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    order, frameworks = contracts[0], contracts[-1]
    pairs = [pair.split(" -> ") for pair in frameworks["ignore_imports"]]
    torch = sorted(name for name, imported in pairs if imported == "torch")
    said = {
        "layers": " > ".join(order["layers"]).replace("adapterscan.", ""),
        "torch": ", ".join(
            f"{name.removeprefix('adapterscan.').replace('.', '/')}.py" for name in torch
        ),
    }

    def filled(match: re.Match[str]) -> str:
        lines = textwrap.fill(said[match[2]], WIDTH, break_on_hyphens=False)
        return f"{match[1]}```text\n{lines}\n```\n"

    return _IMPORTS.sub(filled, text)


def with_sinks(text: str) -> str:
    """Return `text` with its `<!-- sinks -->` block filled from the table that detectors use."""
    lines = ["| field | types | reaches | by | when | releases |", "|---|---|---|---|---|---|"]
    for sink in SINKS:
        kinds = ", ".join(sorted(sink.kinds)) or "all"
        cells = (f"`{sink.field}`", kinds, sink.reaches, sink.call, sink.when, sink.affected)
        lines.append(f"| {' | '.join(cells)} |")
    return _SINKS.sub(lambda match: match[1] + "\n".join(lines) + "\n", text)


def _help(command: tuple[str, ...]) -> str:
    environment = {**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"}
    done = subprocess.run(  # noqa: S603  our own command line
        [sys.executable, "-m", "adapterscan", *command, "--help"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def differences(root: Path) -> Iterator[str]:
    """Yield a unified diff for each generated file under `root` that is missing, stale or extra."""
    wanted = pages(root)
    present = {
        path.relative_to(root).as_posix() for owned in OWNED for path in (root / owned).glob("*")
    }
    for name in sorted({*wanted, *present}):
        path = root / name
        old = path.read_text("utf-8") if path.is_file() else ""
        yield from difflib.unified_diff(
            old.splitlines(), wanted.get(name, "").splitlines(), name, "generated", lineterm=""
        )


def write(root: Path) -> None:
    """Write every generated file under `root` and remove what is left over."""
    wanted = pages(root)
    for owned in OWNED:
        (root / owned).mkdir(parents=True, exist_ok=True)
        for path in (root / owned).glob("*"):
            if path.relative_to(root).as_posix() not in wanted:
                path.unlink()
    for name, text in wanted.items():
        (root / name).write_text(text, "utf-8")


def main(arguments: list[str]) -> int:
    """Write, or with --check print what would change and return 1 if anything would."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    if not parser.parse_args(arguments).check:
        write(ROOT)
        return 0
    found = list(differences(ROOT))
    if found:
        print("\n".join(found))
        print("\nRun python docs/build.py and commit what it writes.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
