"""The report as one HTML file: opens offline, runs nothing, fetches nothing."""

from adapterscan.reporters.html.lineage import render_lineage
from adapterscan.reporters.html.page import render_html

__all__ = ["render_html", "render_lineage"]
