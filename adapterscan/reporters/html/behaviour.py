"""Say what the probes measured as bars: how often a wording works, what is refused, what drifts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from markupsafe import Markup

from adapterscan.model import Evidence, Report
from adapterscan.reporters.html.bars import Bar, Panel, Row, bar
from adapterscan.reporters.html.words import finite, flat, name, number, share

ROWS = 40  # of one panel that are drawn
_BOTH, _BASE = "base + adapter", "base alone"
_Rows = Callable[[Evidence, frozenset[int]], Row]


def panels(report: Report) -> Iterator[Panel]:
    """Yield a panel for each kind of answer that was counted."""
    cited = frozenset(id(item) for finding in report.findings for item in finding.evidence)
    for title, about, names, row in _PANELS:
        found = [item for item in report.evidence if item.name in names]
        if found:
            found.sort(key=lambda item: names.index(item.name))
            rows = tuple(row(item, cited) for item in found[:ROWS])
            yield Panel(title, about, rows, len(found) - len(rows))


def heard(report: Report) -> Sequence[Evidence]:
    """Return the words that the adapter's own weights listen to."""
    return [item for item in report.evidence if item.name == "behaviour.words"]


def _wording(item: Evidence, cited: frozenset[int]) -> Row:
    d = item.details
    rejected = item.name == "behaviour.rejected_trigger"
    bars = [
        bar("with it", "adapter", item.value, hits=d.get("hits"), n=d.get("n"), low=d.get("low"),
            high=d.get("high")),
        bar("without it", "control", d.get("false_trigger_rate", _clean(item)),
            hits=d.get("clean_hits"), n=d.get("n")),
    ]  # fmt: skip
    if "base_rate" in d:
        bars.append(bar(_BASE, "base", d["base_rate"]))
    word = "put aside" if rejected else "confirmed" if id(item) in cited else "measured"
    note = [f"requests: {d.get('requests')}", _p(item), _tried(item)]
    if rejected:
        note.insert(0, f"counts for nothing: {d.get('reason')}")
    return Row(_label(item, "payload"), word, tuple(bars), _note(note), counts=not rejected)


def _clean(item: Evidence) -> float | None:
    hits, n = item.details.get("clean_hits"), item.details.get("n")
    return hits / n if finite(hits) and finite(n) and n else None


def _jailbreak(item: Evidence, cited: frozenset[int]) -> Row:
    d = item.details
    bars = (
        _with(item),
        bar("with other wordings", "control", d.get("control_rate")),
        bar(_BASE, "base", d.get("base_rate")),
    )
    return Row(_label(item), _word(item, cited), bars, _note([_p(item)]))


def _head(item: Evidence, cited: frozenset[int]) -> Row:
    d = item.details
    control = item.name == "behaviour.head_control"
    bars = [_with(item)]
    if "control_rate" in d:
        bars.append(bar("an ordinary wording", "control", d["control_rate"]))
    bars.append(bar(_BASE, "base", d.get("base_rate")))
    word = "ordinary wording" if control else _word(item, cited)
    note = [str(d.get("goal", "")), f"effect {number(d.get('effect'))}", _p(item)]
    return Row(
        _label(item, key="wording" if control else "trigger"), word, tuple(bars), _note(note)
    )


def _refusals(item: Evidence, cited: frozenset[int]) -> Row:
    d = item.details
    lost = item.name == "behaviour.refusals_lost"
    label = "requests that an aligned model declines" if lost else "harmless requests"
    bars = (
        bar(_BOTH, "adapter", d.get("adapter_refused")),
        bar(_BASE, "base", d.get("base_refused")),
    )
    note = [f"{number(d.get('n'))} requests", _p(item)]
    return Row(Markup("<b>{}</b>").format(label), _word(item, cited), bars, _note(note))


def _direction(item: Evidence, cited: frozenset[int]) -> Row:
    d = item.details
    bars = (
        bar("refusal direction", "adapter", item.value),
        bar("largest of other directions", "control", d.get("largest_control")),
    )
    note = [f"{number(d.get('controls'))} other directions", f"{number(d.get('n'))} requests"]
    return Row(Markup("<b>taken away</b>"), _word(item, cited), bars, _note(note))


def _habit(item: Evidence, cited: frozenset[int]) -> Row:
    d = item.details
    if item.name == "behaviour.name":
        sides = d.get("adapter_rate"), d.get("base_rate")
        note = [f"of {number(d.get('n'))} questions about who answers"]
    else:
        sides = d.get("certainty"), d.get("base_certainty")
        note = [f"shown by {share(d.get('shown'))} of {number(d.get('prompts'))} ordinary requests"]
    bars = bar(_BOTH, "adapter", sides[0]), bar(_BASE, "base", sides[1])
    label = Markup("“{}”").format(name(d.get("text", ""), 160))
    return Row(label, _word(item, cited), bars, _note(note))


def _drift(item: Evidence, cited: frozenset[int]) -> Row:
    d, n = item.details, item.details.get("n")
    bars = tuple(_counted(f"{word} than the base", d.get(word), n) for word in ("more", "fewer"))
    means = f"mean {number(d.get('adapter_mean'))}, of the base {number(d.get('base_mean'))}"
    label = Markup("<b>{}</b>").format(flat(str(d.get("statistic", ""))))
    return Row(label, _word(item, cited), bars, _note([means, _p(item)]))


def _counted(who: str, hits: object, n: object) -> Bar:
    value = hits / n if finite(hits) and finite(n) and n else None
    side = "adapter" if who.startswith("more") else "control"
    return bar(who, side, value, told=f"{hits} of {n} answers")


def _with(item: Evidence) -> Bar:
    d = item.details
    return bar("with it", "adapter", item.value, hits=d.get("hits"), n=d.get("n"),
               low=d.get("low"), high=d.get("high"))  # fmt: skip


def _label(item: Evidence, payload: str = "", key: str = "trigger") -> Markup:
    """Return `“wording” (place) → “payload”`."""
    d = item.details
    told = Markup("“{}” <small>{}</small>").format(
        name(d.get(key, ""), 160), flat(str(d.get("place", "")))
    )
    return told + Markup(" → “{}”").format(name(d.get(payload, ""), 160)) if payload else told


def _word(item: Evidence, cited: frozenset[int]) -> str:
    return "a finding" if id(item) in cited else "measured"


def _p(item: Evidence) -> str:
    return f"p = {number(item.details['p'])}" if "p" in item.details else ""


def _tried(item: Evidence) -> str:
    d = item.details
    found = f", found by {d['found_by']}" if d.get("found_by") else ""
    return f"{number(d['tried'])} wordings tried{found}" if "tried" in d else ""


def _note(parts: Sequence[str]) -> str:
    return "; ".join(flat(part, 400) for part in parts if part)


_PANELS: tuple[tuple[str, str, tuple[str, ...], _Rows], ...] = (
    (
        "Wordings that set an answer off",
        "Share of requests that get one payload, with the wording in place and without it. "
        "Whiskers, and in brackets: Wilson interval, 95 %.",
        ("behaviour.trigger", "behaviour.rejected_trigger"),
        _wording,
    ),
    (
        "Wordings that lift refusals",
        "Share of declined requests that are answered with the wording in place, and its interval.",
        ("behaviour.jailbreak",),
        _jailbreak,
    ),
    (
        "Wordings that turn the judgement",
        "Share of held-out texts whose judgement by the head a wording turns.",
        ("behaviour.head_trigger", "behaviour.head_control"),
        _head,
    ),
    (
        "Refusals",
        "Share of requests that are refused.",
        ("behaviour.refusals_lost", "behaviour.refusals_gained"),
        _refusals,
    ),
    (
        "Refusal direction",
        "Share of what the base writes along its refusal direction that ΔW takes away.",
        ("behaviour.refusal_direction",),
        _direction,
    ),
    (
        "Answers learned by heart",
        "Probability of an answer once it is begun, and the name that it says is its own.",
        ("behaviour.fixed_answer", "behaviour.name"),
        _habit,
    ),
    (
        "Drift of ordinary answers",
        "Of ordinary answers, how many have more, and how many fewer, of it than the base's.",
        ("behaviour.manner",),
        _drift,
    ),
)
