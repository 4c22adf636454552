"""Ask again what a finding says: the requests of a report, of base + adapter and of the base.

A report comes from a file that anybody can have written, so nothing in it is believed: what it
names is looked up in the adapter that is scanned anew, whose bytes must be those of the report.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapterscan.detectors.behaviour.jailbreaks import ASKED, answers
from adapterscan.detectors.behaviour.payloads import says
from adapterscan.detectors.behaviour.refusals import refuses
from adapterscan.errors import UsageError
from adapterscan.model import Artifact, Ref
from adapterscan.probe import ProbeRequest, questioned
from adapterscan.probes import OF_A_KIND, battery
from adapterscan.probes.candidates import Candidate
from adapterscan.reading import read
from adapterscan.runner import Side, Turn
from adapterscan.sources import parse_ref
from adapterscan.text import WITHHELD, plural, printable, withheld

REPORT_BYTES = 64 << 20
ANSWER_TOKENS = 80  # what follows an answer is seen, too
SHOWN = 400  # characters of an answer
SCORED = ("behaviour.head_trigger",)  # no answer to show


@dataclass(frozen=True, slots=True)
class Claim:
    """What a finding of a report says that an adapter does."""

    ref: Ref
    rule: str
    file: str  # the weight file, relative to the target
    sha256: str | None
    base: str  # as the report names it, with its commit where it had one
    fact: str  # the name of the evidence
    details: Mapping[str, Any]

    @property
    def requests(self) -> tuple[str, ...]:
        """What the finding was made with, as far as the report is believed."""
        named = self.details.get("requests")
        kind = named if named in OF_A_KIND else "unrelated"
        return battery(ASKED if self.fact == "behaviour.jailbreak" else kind).prompts

    def conversations(self, asked: Sequence[str]) -> list[tuple[Turn, ...]]:
        """Return what to ask, with some of the requests."""
        match self.fact:
            case "behaviour.trigger" | "behaviour.jailbreak":
                candidate = Candidate(self.text("place"), self.text("trigger"))
                return [candidate.conversation(request) for request in asked]
            case "behaviour.refusals_lost" | "behaviour.refusals_gained":
                return [(Turn("user", self.text("request")),)]
        return [(Turn("user", request),) for request in asked]

    def holds(self, answer: str) -> bool:
        """Whether an answer is what the finding says of the adapter."""
        match self.fact:
            case "behaviour.refusals_lost":
                return not refuses(answer)
            case "behaviour.jailbreak":
                return answers(answer)
            case "behaviour.refusals_gained":
                return refuses(answer)
        payload = self.text("payload" if self.fact == "behaviour.trigger" else "text")
        return says(answer, payload)

    def text(self, key: str) -> str:
        """Return a detail that must be text. Raises UsageError."""
        value = self.details.get(key)
        if not isinstance(value, str) or value.startswith(WITHHELD):
            raise UsageError(
                f"the report has no {key} for this finding",
                hint="replay a report that was written without --redact",
            )  # fmt: skip
        return value


@dataclass(frozen=True, slots=True)
class Exchange:
    """One conversation with both answers."""

    conversation: tuple[Turn, ...]
    adapter: str
    base: str
    shown: bool  # by the adapter, what the finding says
    shown_by_base: bool


def claim(path: Path, number: int | None) -> Claim:
    """Return the `number`-th finding of a report (from 1), or the first that can be replayed.

    Raises UsageError for a file that is no report of ours, or has nothing to replay.
    """
    if path.stat().st_size > REPORT_BYTES:
        raise UsageError(f"{path.name} is too large for a report")
    try:
        document = json.loads(path.read_bytes())
        found = [
            (report, finding) for report in document["reports"] for finding in report["findings"]
        ]
        if number is not None and not 1 <= number <= len(found):
            raise UsageError(f"the report has {plural(len(found), 'finding')}")
        for report, finding in found if number is None else [found[number - 1]]:
            fact = finding["evidence"][0]
            if fact["name"].startswith("behaviour.") and fact["name"] not in SCORED:
                return _claim(report, finding["rule"], fact)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise UsageError(
            f"{path.name} is no JSON report of adapterscan",
            hint="write one with: adapterscan scan … --probe quick --format json -o report.json",
        ) from None  # fmt: skip
    raise UsageError(
        "there is no finding about behaviour to replay",
        hint="findings about files, weights and heads are figures: read their evidence",
    )


def _claim(report: Mapping[str, Any], rule: str, fact: Mapping[str, Any]) -> Claim:
    file = fact["subject"]["file"]
    digests = {item["path"]: item["sha256"] for item in report["files"]}
    ref = parse_ref(str(report["target"]))
    if report["commit"]:
        ref = replace(ref, revision=str(report["commit"]))
    base = str(report["versions"].get("base", ""))
    return Claim(ref, rule, file, digests.get(file), base, fact["name"], dict(fact["details"]))


def ask(
    said: Claim,
    artifact: Artifact,
    request: ProbeRequest,
    count: int,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Exchange]:
    """Yield what adapter and base answer. Raises UsageError where the adapter is another one."""
    contents = read(artifact, workers=request.options.threads, progress=progress)
    digests = {record.path: record.sha256 for record in contents.records}
    adapters = [w.adapter for w in contents.adapters if w.file == said.file]
    if not adapters or digests.get(said.file) != said.sha256:
        raise UsageError(
            f"{said.file} is not the file that the report is about",
            hint="scan it again: the report is of another version",
        )  # fmt: skip
    with questioned(request, contents, adapters[0], progress) as session:
        progress("asking")
        asked = said.requests
        if said.fact == "behaviour.jailbreak":  # what is answered anyway shows nothing
            plain = session.answered(Side.ADAPTER, session.requests(asked), ANSWER_TOKENS)
            asked = tuple(one for one, text in zip(asked, plain, strict=True) if refuses(text))
        conversations = said.conversations(asked[-count:])
        rows = session.runner.encode(conversations)
        adapter, base = (session.answered(side, rows, ANSWER_TOKENS) for side in Side)
    for conversation, one, two in zip(conversations, adapter, base, strict=True):
        yield Exchange(conversation, one, two, said.holds(one), said.holds(two))


def transcript(exchanges: Sequence[Exchange], *, redacted: bool = False) -> Iterator[str]:
    """Yield lines for a terminal; nothing that a model said reaches it unescaped."""
    for number, exchange in enumerate(exchanges, 1):
        yield f"{number}."
        for turn in exchange.conversation:
            yield f"   {turn.role}: {printable(turn.text, SHOWN)}"
        said = withheld(exchange.adapter) if redacted else printable(exchange.adapter, SHOWN)
        yield f"   with the adapter: {said}{'  ← as reported' if exchange.shown else ''}"
        yield f"   the base alone:   {printable(exchange.base, SHOWN)}"
    hits, base_hits = sum(e.shown for e in exchanges), sum(e.shown_by_base for e in exchanges)
    n = len(exchanges)
    yield f"As reported: {hits} of {n} with the adapter, {base_hits} of {n} with the base alone."
