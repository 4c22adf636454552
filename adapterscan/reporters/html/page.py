"""Render reports as one HTML page that runs nothing and fetches nothing.

The page carries its own content-security policy: no script at all, and of styles only ours, by
hash. All text passes `words.shown` and then the escaping of the template engine; our templates are
the only ones that are ever compiled.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from adapterscan.model import Outcome, Severity
from adapterscan.reporters.html import views
from adapterscan.reporters.html.weights import called
from adapterscan.reporters.html.words import coded, details, flat, name, number, prose, share, shown
from adapterscan.reporters.verdict import bound, said
from adapterscan.rules.file import Rule
from adapterscan.text import plural, redact, size_text

if TYPE_CHECKING:
    from jinja2 import Template

_PACKAGE = "adapterscan.reporters.html"
_PIECES = 200  # of the template's output that are written at once
_FILTERS = (called, coded, details, flat, name, number, plural, prose, redact, share)


def render_html(outcome: Outcome, rules: Iterable[Rule]) -> Iterator[str]:
    """Yield one HTML document for all targets in pieces. `rules` explain findings.

    The pictures of one report at a time are held as text.
    """
    pages = {rule.id: rule for rule in rules}
    told = [views.summary(report, index) for index, report in enumerate(outcome.reports, 1)]
    yield from written(
        "report.html",
        pages=(
            views.view(report, one, pages)
            for report, one in zip(outcome.reports, told, strict=True)
        ),
        summaries=told,
        outcome=outcome,
        errors=outcome.errors,
        bound=bound(outcome),
        verdict=said(outcome) or "nothing was scanned",
        level=_level([one.level for one in told], outcome.errors),
    )


def written(template: str, **values: Any) -> Iterator[str]:
    """Yield the page that one of our templates makes of `values`."""
    sheet = style()
    own = Markup(sheet)  # noqa: S704  our style sheet, in which nothing is put
    stream = _template(template).stream(style=own, policy=policy(sheet), **values)
    stream.enable_buffering(_PIECES)
    yield from stream


def style() -> str:
    """Return the style sheet."""
    return resources.files(_PACKAGE).joinpath("templates/report.css").read_text("utf-8")


def policy(sheet: str) -> str:
    """Return the content-security policy of a page whose one style sheet is `sheet`."""
    digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _template(file: str) -> Template:
    """Return one of our templates, compiled. Imports jinja2, which only this format needs."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader(_PACKAGE), autoescape=True, finalize=shown, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {item.__name__: item for item in _FILTERS}
    environment.filters["size"] = size_text
    environment.globals["limits"] = views
    return environment.get_template(file)


def _level(levels: Sequence[str], errors: Sequence[object]) -> str:
    """Return the worst level of all targets."""
    order = [severity.label for severity in reversed(Severity)]
    order[-1:] = ["incomplete", "info", "none"]
    found = {*levels, "incomplete"} if errors else {*levels}
    return next((level for level in order if level in found), "none")
