"""The command line: the only place that prints, reads the environment and exits.

Heavy imports stay inside the commands, so that `--help` and a mistyped option answer at once. Help
lists the commands in the order in which they are imported here.
"""

# ruff: isort: off
from adapterscan.cli import scan, merge, compare, hook, report, diff, baseline, replay  # noqa: F401
from adapterscan.cli import calibrate, base, rules  # noqa: F401

# ruff: isort: on
from adapterscan.cli.app import app, main

__all__ = ["app", "main"]
