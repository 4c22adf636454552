"""Write the generated pages of the docs: `python docs/build.py`, or `--check` to compare only."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from adapterscan.rule_pages import index_page, rule_page
from adapterscan.rules import load_rules

DOCS = Path(__file__).resolve().parent

Pages = Mapping[str, str]  # text by path under docs/


def rule_pages() -> Pages:
    """Return one page per built-in rule, and their index."""
    rules = load_rules()
    pages = {f"rules/{rule.id}.md": rule_page(rule) for rule in rules}
    return {**pages, "rules/README.md": index_page(rules)}


#: Folder that holds nothing but generated pages -> what writes them.
GENERATED: Mapping[str, Callable[[], Pages]] = {"rules": rule_pages}


def differences(docs: Path) -> Iterator[str]:
    """Yield a unified diff for every page under `docs` that is missing, stale or left over."""
    for folder, pages_of in GENERATED.items():
        pages = pages_of()
        present = {path.relative_to(docs).as_posix() for path in (docs / folder).rglob("*.md")}
        for name in sorted({*pages, *present}):
            old = (docs / name).read_text("utf-8") if name in present else ""
            new = pages.get(name, "")
            diff = difflib.unified_diff(
                old.splitlines(), new.splitlines(), f"docs/{name}", "generated", lineterm=""
            )
            yield from diff


def write(docs: Path) -> None:
    """Write every generated page under `docs` and remove what is left over."""
    for folder, pages_of in GENERATED.items():
        pages = pages_of()
        for path in (docs / folder).rglob("*.md"):
            if path.relative_to(docs).as_posix() not in pages:
                path.unlink()
        for name, text in pages.items():
            path = docs / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check print what would change and return 1 if anything would."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    if not parser.parse_args(arguments).check:
        write(DOCS)
        return 0
    found = list(differences(DOCS))
    if found:
        print("\n".join(found))
        print("\nRun python docs/build.py and commit what it writes.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
