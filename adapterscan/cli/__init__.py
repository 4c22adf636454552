"""The command line: the only place that prints, reads the environment and exits.

Heavy imports stay inside the commands, so that `--help` and a mistyped option answer at once. Help
lists the commands in the order in which they are imported here.
"""

from adapterscan.cli import scan, report, merge, compare, hook, replay, calibrate, base, rules  # noqa: F401, I001
from adapterscan.cli.app import app, main

__all__ = ["app", "main"]
