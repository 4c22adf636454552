"""`adapterscan rules` and `adapterscan explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adapterscan.cli.app import app, explained
from adapterscan.cli.inputs import rule_book
from adapterscan.cli.output import Plain
from adapterscan.errors import UsageError


@app.command("rules")
def list_rules(
    rules: Annotated[
        list[Path] | None, typer.Option(help="A folder with more rules; repeatable.")
    ] = None,
    format: Annotated[Plain, typer.Option("--format", "-f", help="What to write.")] = Plain.TABLE,
) -> None:
    """List the rules that judge what detectors measure."""
    with explained():
        book = rule_book(rules or ())
        rows = [
            (rule.id, rule.severity.label, rule.confidence.label, rule.title)
            for rule in sorted(book, key=lambda rule: (-rule.severity, rule.id))
        ]
        if format is Plain.JSON:
            import json

            keys = ("id", "severity", "confidence", "title")
            typer.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=1))
            return
        from tabulate import tabulate

        typer.echo(tabulate(rows, ["rule", "severity", "confidence", "title"], tablefmt="simple"))
        typer.echo(f"\n{len(rows)} rules. `adapterscan explain RULE` prints the page of one.")


@app.command()
def explain(
    rule: Annotated[str, typer.Argument(help="A rule id, as in a report.")],
    rules: Annotated[
        list[Path] | None, typer.Option(help="A folder with more rules; repeatable.")
    ] = None,
) -> None:
    """Print a rule's page: what it is, why it matters, what to do."""
    with explained():
        from difflib import get_close_matches

        from adapterscan.rules.pages import rule_page

        book = {item.id: item for item in rule_book(rules or ())}
        if rule not in book:
            near = get_close_matches(rule.lower(), book, 3)
            hint = f"did you mean {', '.join(near)}?" if near else "see `adapterscan rules`"
            raise UsageError(f"no rule is called {rule!r}", hint=hint)
        typer.echo(rule_page(book[rule]))
