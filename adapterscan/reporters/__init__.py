"""Turn reports into what people and machines read. `FORMATS` maps a name to its renderer."""

from adapterscan.reporters.json_report import render_json
from adapterscan.reporters.terminal import render_terminal

__all__ = ["render_json", "render_terminal"]
