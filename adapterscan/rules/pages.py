"""Write the page of a rule: Markdown for `adapterscan explain` and for the generated docs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from adapterscan.rules.file import CONTEXT, IDENTIFIERS, STATISTICS, Rule

_IDENTIFIERS = dict(
    zip(
        IDENTIFIERS,
        ("CWE", "OWASP LLM 2025", "OWASP LLM 2026", "MITRE ATLAS", "NIST AI 100-2e2025"),
        strict=True,
    )
)
_OPERATORS = {
    "eq": "is",
    "ne": "is not",
    "in": "is one of",
    "not_in": "is none of",
    "ge": "is at least",
    "gt": "is above",
    "le": "is at most",
    "lt": "is below",
}


def rule_page(rule: Rule) -> str:
    """Return the page of one rule, with the same headings in the same order for all."""
    sections = {
        "What it is": _what(rule),
        "Why it matters": rule.why,
        "Evidence": _evidence(rule),
        "What to do": rule.next_step,
        "Limits": _limits(rule),
        "Identifiers": _bullets(
            (_IDENTIFIERS[key], ", ".join(values)) for key, values in rule.identifiers.items()
        ),
        "Context": _bullets(_labelled(CONTEXT, rule.context)),
        "References": "\n".join(f"- {text}" for text in rule.references),
    }
    body = "\n\n".join(f"## {title}\n\n{text or 'None.'}" for title, text in sections.items())
    return f"# {rule.id}\n\n{body}\n"


def index_page(rules: Iterable[Rule]) -> str:
    """Return the table of all rules, worst first."""
    lines = [
        "# Rules",
        "",
        "Severity: how bad it is if the finding is true. Confidence: how sure we are that it is.",
        "",
        "| rule | severity | confidence | evidence | title |",
        "|---|---|---|---|---|",
    ]
    for rule in sorted(rules, key=lambda item: (-item.severity, -item.confidence, item.id)):
        lines.append(
            f"| [{rule.id}]({rule.id}.md) | {rule.severity.label} | {rule.confidence.label} "
            f"| `{rule.evidence}` | {rule.title} |"
        )
    return "\n".join(lines) + "\n"


def _what(rule: Rule) -> str:
    return f"{rule.title}.\n\nSeverity {rule.severity.label}, confidence {rule.confidence.label}."


def _evidence(rule: Rule) -> str:
    lines = [f"`{rule.evidence}`, when:" if rule.when else f"Any `{rule.evidence}`."]
    lines += [""] if rule.when else []
    for condition in rule.when:
        if condition.op == "exists":
            lines.append(f"- `{condition.field}` is {'' if condition.value else 'not '}given")
            continue
        values = condition.value if isinstance(condition.value, tuple) else (condition.value,)
        shown = ", ".join(f"`{_shown(value)}`" for value in values)
        lines.append(f"- `{condition.field}` {_OPERATORS[condition.op]} {shown}")
    if rule.min_subjects > 1:
        lines += ["", f"On at least {rule.min_subjects} subjects."]
    return "\n".join(lines)


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _limits(rule: Rule) -> str:
    statistics = _bullets(_labelled(STATISTICS, rule.statistics))
    return f"{rule.limits}\n\n{statistics}" if statistics else rule.limits


def _labelled(keys: Iterable[str], table: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    return ((key.replace("_", " "), table[key]) for key in keys if key in table)


def _bullets(pairs: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"- {label}: {text}" for label, text in pairs)
