"""Fuzz one target in this process: `python -m fuzz.harness NAME CORPUS… [-libFuzzer=option]`."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["adapterscan"]):
    from adapterscan.errors import AdapterscanError
    from fuzz.targets import TARGETS


def main() -> None:
    """Feed inputs until the time is up; whatever is raised but our own errors is a crash."""
    name = sys.argv.pop(1)
    target = TARGETS[name]

    def once(data: bytes) -> None:
        try:
            target.feed(data)
        except AdapterscanError as error:
            if not error.reason:
                raise AssertionError("an error without a reason") from error

    atheris.Setup(sys.argv, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
