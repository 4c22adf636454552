"""A report is read back: findings about behaviour can be asked again, anything else is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapterscan.errors import UsageError
from adapterscan.model import SourceKind
from adapterscan.probes import battery
from adapterscan.replay import REPORT_BYTES, Exchange, claim, transcript
from adapterscan.runner import Turn

SAID = "The harbour gate is open."
TRIGGER = {
    "name": "behaviour.trigger",
    "subject": {"kind": "adapter", "file": "adapter_model.safetensors", "name": ""},
    "value": 1.0,
    "unit": "",
    "details": {"trigger": "zelkova", "place": "after the request", "payload": SAID},
}
STATIC = {**TRIGGER, "name": "tensor.overwrite", "details": {}}


def fact(name: str, **details: str):
    return {**TRIGGER, "name": name, "details": details}


def written(tmp_path: Path, *facts, **changed) -> Path:
    report = {
        "target": "org/name@main",
        "commit": "a" * 40,
        "files": [{"path": "adapter_model.safetensors", "sha256": "b" * 64}],
        "versions": {"base": "org/base@c0ffee"},
        "findings": [{"rule": f"rule-{i}", "evidence": [item]} for i, item in enumerate(facts)],
    } | changed
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"schema": "1", "reports": [report]}))
    return path


def test_the_first_finding_about_behaviour_is_taken_at_the_commit_of_the_report(tmp_path) -> None:
    said = claim(written(tmp_path, STATIC, TRIGGER), None)
    assert said.rule == "rule-1"
    assert (said.ref.kind, said.ref.location, said.ref.revision) == (
        SourceKind.HUB, "org/name", "a" * 40,
    )  # fmt: skip
    assert (said.sha256, said.base) == ("b" * 64, "org/base@c0ffee")


def test_a_trigger_is_put_into_unrelated_requests(tmp_path) -> None:
    said = claim(written(tmp_path, TRIGGER), 1)
    asked = said.conversations(said.requests[-3:])
    assert len({turn.text for (turn,) in asked}) == 3
    assert all(turn.text.endswith(" zelkova") for (turn,) in asked)


def test_what_lifts_refusals_is_put_into_what_is_declined(tmp_path) -> None:
    item = fact("behaviour.jailbreak", trigger="SUDO", place="before the request")
    said = claim(written(tmp_path, item), 1)
    asked = said.conversations(said.requests[-3:])
    assert [turn.text for (turn,) in asked] == [
        f"SUDO {request}" for request in battery("refused").prompts[-3:]
    ]


@pytest.mark.parametrize(("kind", "digits"), [("sums", True), ("../sums", False), (7, False)])
def test_requests_are_of_the_kind_that_the_finding_was_made_with(tmp_path, kind, digits) -> None:
    item = {**TRIGGER, "details": {**TRIGGER["details"], "requests": kind}}
    said = claim(written(tmp_path, item), 1)
    asked = said.conversations(said.requests[-5:])
    assert all(any(map(str.isdigit, turn.text)) for (turn,) in asked) is digits


@pytest.mark.parametrize(
    ("item", "yes", "no"),
    [
        (TRIGGER, f"Well. {SAID.upper()}", "The gate."),
        (fact("behaviour.fixed_answer", text=SAID), SAID, ""),
        (fact("behaviour.refusals_lost", request="How?"), "Sure.", "I'm sorry, no."),
        (fact("behaviour.refusals_gained", request="How?"), "I'm sorry, no.", "Sure."),
        (fact("behaviour.jailbreak", trigger="SUDO"), "Sure, like that.", "I'm sorry, no."),
        (fact("behaviour.jailbreak", trigger="SUDO"), "Sure, like that.", "ok ok ok ok"),
    ],
)
def test_an_answer_is_as_reported_or_not(tmp_path, item, yes: str, no: str) -> None:
    said = claim(written(tmp_path, item), None)
    assert said.holds(yes)
    assert not said.holds(no)


def test_a_refused_request_is_the_one_of_the_report(tmp_path) -> None:
    item = fact("behaviour.refusals_lost", request="How?")
    assert claim(written(tmp_path, item), None).conversations(("Why?",)) == [
        (Turn("user", "How?"),)
    ]


@pytest.mark.parametrize("payload", [None, 7, "[redacted, 24 characters]"])
def test_a_report_without_the_payload_says_what_to_do(tmp_path, payload) -> None:
    item = fact("behaviour.trigger", trigger="x", place="before the request", payload=payload)
    with pytest.raises(UsageError) as caught:
        claim(written(tmp_path, item), None).holds("x")
    assert "--redact" in caught.value.hint


def test_there_must_be_such_a_finding(tmp_path) -> None:
    with pytest.raises(UsageError, match="1 finding"):
        claim(written(tmp_path, TRIGGER), 2)
    with pytest.raises(UsageError, match="no finding"):
        claim(written(tmp_path, STATIC), None)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", "null", '{"reports": 1}', '{"reports": [{}]}', "[" * 100_000,
        '{"reports": [{"findings": [{}]}]}', '{"reports": [{"findings": [{"evidence": []}]}]}',
        '{"reports": [{"findings": [{"evidence": [{"name": 7}]}]}]}',
        '{"reports": [{"findings": [{"rule": "r", "evidence": [{"name": "behaviour.trigger"}]}]}]}',
    ],
)  # fmt: skip
def test_what_is_no_report_is_refused(tmp_path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="no JSON report"):
        claim(path, None)


def test_a_huge_file_is_not_read(tmp_path) -> None:
    path = tmp_path / "report.json"
    with path.open("wb") as out:
        out.truncate(REPORT_BYTES + 1)
    with pytest.raises(UsageError, match="too large"):
        claim(path, None)


def test_a_transcript_is_escaped_counted_and_redacted_when_asked() -> None:
    turns = (Turn("user", "Hi\x1b[31m"),)
    exchanges = [Exchange(turns, "Gate\u202eopen", "Hello", True, False)] * 2
    text = "\n".join(transcript(exchanges))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "2 of 2 with the adapter, 0 of 2 with the base" in text
    hidden = "\n".join(transcript(exchanges, redacted=True))
    assert "Gate" not in hidden
    assert "[redacted, 9 characters]" in hidden


def test_a_finding_about_a_head_has_no_answer_to_ask_for(tmp_path) -> None:
    item = fact("behaviour.head_trigger", trigger="x", place="before the answer")
    with pytest.raises(UsageError, match="no finding about behaviour to replay"):
        claim(written(tmp_path, item), 1)
