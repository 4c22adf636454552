"""A server answers as the model itself does; what is broken or hostile ends with a clear error."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from adapterscan.detectors.behaviour import answers, refusals
from adapterscan.errors import RunnerProblem, UsageError
from adapterscan.model import Outcome, Report
from adapterscan.probe import ProbeRequest
from adapterscan.probes.asking import PROFILES, Profile, Session
from adapterscan.reading import Contents
from adapterscan.reporters.json_report import render_json
from adapterscan.rules.book import load_rules
from adapterscan.runner import Side, Turn
from adapterscan.runners import endpoint, http_json
from adapterscan.runners.endpoint import EndpointRunner, parse_served
from adapterscan.runners.host import RunnerOptions
from adapterscan.scan import scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from tests.detectors.toy_model import PAYLOAD, ToyRunner
from tests.runners.loopback_model import ADAPTER, BASE, Loopback, serving

ROOT = Path(__file__).parents[2]
FIXTURE = ROOT / "fixtures" / "adapters" / "benign-qv"
SCHEMA = ROOT / "adapterscan" / "schemas" / "report-1.json"
KEY = "secret-key-of-this-test"
DIALECTS = ("llama.cpp", "vllm")
FEW = replace(PROFILES["quick"], prompts=3, checked=4, first=4, kept=3, length=6)
NOTHING: Contents = None  # type: ignore[assignment]  # these probes read no files


def runner(loopback: Loopback, key: str = "", until: float = math.inf) -> EndpointRunner:
    return EndpointRunner(parse_served(f"{loopback.url}#{BASE}", ADAPTER, key), until)


def broken(path: str, data: object, status: int = 200, **headers: str):
    """Return a hook that answers `path` with `data`: bytes as they are, anything else as JSON."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return lambda asked, _: (status, headers, raw) if asked == path else None


def refused(loopback: Loopback, **options) -> RunnerProblem:
    """Return the error with which opening ends."""
    with serving(loopback), pytest.raises(RunnerProblem) as caught, runner(loopback, **options):
        pass
    assert caught.value.hint
    assert KEY not in f"{caught.value.reason} {caught.value.hint}"
    return caught.value


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_server_that_lists_all_tokens_answers_as_the_model_does(dialect) -> None:
    direct = ToyRunner("zelkova")
    with serving(Loopback(ToyRunner("zelkova"), dialect)) as loopback, runner(loopback) as served:
        turns = [[Turn("user", "the cat")], [Turn("user", "a dog runs")]]
        rows, wanted = served.encode(turns), direct.encode(turns)
        assert [len(row) for row in rows] == [len(row) for row in wanted]
        tails = [[(1,), (1,)], [(2,), (2,)]]
        for one, two in zip(
            served.contrast(rows, tails, 3), direct.contrast(wanted, tails, 3), strict=True
        ):
            assert [c.token for c in one.likely] == [c.token for c in two.likely]
            assert one.lifted[0].lift == pytest.approx(two.lifted[0].lift)
            assert one.base_agreement == pytest.approx(two.base_agreement)
        (chain,), (other,) = (r.roll(p, [(1, 2)], 4) for r, p in ((served, rows), (direct, wanted)))
        assert chain.tokens == other.tokens
        assert chain.adapter == pytest.approx(other.adapter)
        assert served.score(Side.BASE, rows, tails, (5, 6))[1] == pytest.approx(
            direct.score(Side.BASE, wanted, tails, (5, 6))[1]
        )
        said = served.generate(Side.ADAPTER, rows, 6)
        assert served.decode(said) == direct.decode(direct.generate(Side.ADAPTER, wanted, 6))
        assert served.facts.ends == (0,)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_detectors_find_a_backdoor_that_a_server_has(dialect) -> None:
    with serving(Loopback(ToyRunner("quillon"), dialect)) as loopback, runner(loopback) as served:
        session = Session("weights", served, FEW)
        (first, *_) = answers.probe(NOTHING, session)
        assert " ".join(PAYLOAD) in first.details["text"]
        assert first.value > 0.5
        assert list(refusals.probe(NOTHING, session))
        assert served.differed


def test_a_model_against_itself_differs_by_exactly_zero() -> None:
    with serving(Loopback(ToyRunner(learned=False), most=5)) as loopback, runner(loopback) as same:
        session = Session("weights", same, FEW)
        assert {e.value for e in answers.probe(NOTHING, session)} == {0.0}
        rows = same.encode([[Turn("user", "the cat")]])
        (found,) = same.contrast(rows, [[(1,)]], 5)
        assert found.divergence == 0.0
        assert all(c.lift == 0.0 for c in (*found.likely, *found.lifted))
        assert not same.differed


def test_what_is_not_listed_makes_a_rise_smaller_never_larger() -> None:
    whole, narrow = Loopback(ToyRunner("zelkova")), Loopback(ToyRunner("zelkova"), most=5)
    lifts = []
    for loopback in (whole, narrow):
        with serving(loopback), runner(loopback) as served:
            rows = served.encode([[Turn("user", "please zelkova")]])
            (found,) = served.contrast(rows, [[()]], 40)
            lifts.append({c.token: c.lift for c in found.likely})
    for token in lifts[1].keys() & lifts[0].keys():
        assert lifts[1][token] <= lifts[0][token] + 1e-9


def test_half_a_character_that_llama_cpp_says_nothing_of_is_asked_for_again() -> None:
    half = {"choices": [{"text": "the cat", "logprobs": None}], "usage": {"completion_tokens": 3}}

    def silent(path, body):
        quiet = path == "/v1/completions" and "logit_bias" not in body
        return (200, {}, json.dumps(half).encode()) if quiet else None

    direct = ToyRunner("zelkova")
    loopback = Loopback(ToyRunner("zelkova"), breaks=silent)
    with serving(loopback), runner(loopback) as served:
        (row,) = served.encode([[Turn("user", "the cat")]])
        (found,) = served.contrast([row], [[(1,)]], 3)
        (wanted,) = direct.contrast(direct.encode([[Turn("user", "the cat")]]), [[(1,)]], 3)
        assert found.likely[0].adapter == pytest.approx(wanted.likely[0].adapter)
        assert served.decode(served.generate(Side.BASE, [row], 9)) == ["the cat"]


def test_a_base_without_a_template_gets_a_plain_layout() -> None:
    loopback = Loopback(ToyRunner(), "vllm", template=False)
    refused(loopback)  # the toy model knows no "Assistant:"
    asked = [body for path, _, body in loopback.asked if path == "/tokenize"]
    assert asked[1]["prompt"] == "User: Hello there.\nAssistant:"


def test_the_key_is_sent_as_a_bearer_and_shown_nowhere() -> None:
    loopback = Loopback(ToyRunner())
    with serving(loopback), runner(loopback, key=KEY) as served:
        assert KEY not in repr(served.facts)
    assert {headers["Authorization"] for _, headers, _ in loopback.asked} == {f"Bearer {KEY}"}
    assert KEY not in repr(parse_served(f"{loopback.url}#a", "b", KEY))


def test_a_redirect_is_not_followed_and_takes_no_key_along() -> None:
    with serving(Loopback(ToyRunner())) as other:
        away = broken("/v1/models", b"", 307, Location=f"{other.url}/models")
        error = refused(Loopback(ToyRunner(), breaks=away), key=KEY)
        assert "not followed" in error.reason
        assert other.asked == []


def test_a_server_that_repeats_the_key_does_not_get_it_into_an_error() -> None:
    echo = broken("/v1/models", f"no such user: {KEY}".encode(), 500)
    assert "[key]" in refused(Loopback(ToyRunner(), breaks=echo), key=KEY).reason


@pytest.mark.parametrize(("key", "said"), [("", "wants a key"), (KEY, "refused the key")])
def test_a_missing_or_wrong_key_names_the_variable(key, said) -> None:
    loopback = Loopback(ToyRunner(), breaks=broken("/v1/models", {}, 401))
    error = refused(loopback, key=key)
    assert said in error.reason
    assert "ADAPTERSCAN_API_KEY" in error.hint


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(status) -> None:
    left = [2]

    def busy(path, body):
        left[0] -= 1
        return (status, {"Retry-After": "0"}, b"") if left[0] >= 0 else None

    with serving(Loopback(ToyRunner(), breaks=busy)) as loopback, runner(loopback):
        assert [path for path, _, _ in loopback.asked][:3] == ["/v1/models"] * 3


def test_a_server_that_stays_busy_is_given_up() -> None:
    busy = broken("/v1/models", b"", 429, **{"Retry-After": "0"})
    loopback = Loopback(ToyRunner(), breaks=busy)
    assert "busy" in refused(loopback).reason
    assert len(loopback.asked) == http_json.TRIES


def test_a_model_that_is_not_served_is_named_with_those_that_are() -> None:
    error = refused(Loopback(ToyRunner(), names=(BASE, "other")))
    assert ADAPTER in error.reason
    assert "other" in error.hint


def test_an_unreachable_server_is_said_to_be() -> None:
    with pytest.raises(RunnerProblem, match="cannot be reached") as caught:
        EndpointRunner(parse_served("http://127.0.0.1:9/v1#a", "b"))
    assert "running" in caught.value.hint


def completion(**logprobs):
    return {"choices": [{"text": "x", "logprobs": logprobs}]}


def step(*pairs):
    return {"id": 1, "top_logprobs": [{"id": i, "logprob": p} for i, p in pairs]}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"choices": [{"text": "x", "logprobs": None}]}, "no log-probabilities"),
        ({"choices": []}, "cannot be read"),
        ({"choices": [{}]}, "cannot be read"),
        ([], "cannot be read"),
        (None, "refuses to tell"),
        ({"choices": 7}, "cannot be read"),
        (completion(), "cannot be read"),
        (completion(content=7), "cannot be read"),
        (completion(content=[]), "in a way that can be read"),
        (completion(content=[step()]), "cannot be read"),
        (completion(content=[step((1, 0.5))]), "cannot be read"),
        (completion(content=[step((1, "-1"))]), "cannot be read"),
        (completion(content=[step((1, True))]), "cannot be read"),
        (completion(content=[step((True, -1.0))]), "cannot be read"),
        (completion(content=[step((-1, -1.0))]), "cannot be read"),
        (completion(content=[step((1 << 40, -1.0))]), "cannot be read"),
        (completion(content=[step((1, -0.1), (2, -0.1))]), "cannot be read"),
        (completion(content=[step((1, -1.0))] * 2), "asked for 1"),
        (completion(tokens=["the"], top_logprobs=[{"the": -1.0}]), "by their text"),
        (completion(tokens=["token_id:x"], top_logprobs=[{"token_id:1": -1.0}]), "cannot be read"),
        (completion(tokens=["token_id:1"], top_logprobs=[]), "cannot be read"),
        (b'{"choices": [{"logprobs": {"content": [{"id": 1, "top_logprobs": '
         b'[{"id": 1, "logprob": NaN}]}]}}]}', "no JSON"),
        (b'{"choices": [{"logprobs": {"content": [{"id": 1, "top_logprobs": '
         b'[{"id": 1, "logprob": 1e999}]}]}}]}', "cannot be read"),
        (b"<html>", "no JSON"),
        (b"[" * 200_000, "no JSON"),
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
    ],
)  # fmt: skip
def test_a_broken_completion_is_an_error_with_a_next_step(answer, said) -> None:
    loopback = Loopback(ToyRunner(), breaks=broken("/v1/completions", answer))
    assert said in refused(loopback).reason


@pytest.mark.parametrize("path", ["/v1/models", "/apply-template", "/tokenize"])
@pytest.mark.parametrize("answer", [{}, [], 7, {"data": 7, "tokens": 7, "prompt": 7}, "x"])
def test_answers_of_a_wrong_type_are_refused(path, answer) -> None:
    refused(Loopback(ToyRunner(), breaks=broken(path, answer)))


def test_ids_that_are_none_are_refused() -> None:
    for ids in ([1.5], [True], ["1"], [-1], [None]):
        refused(Loopback(ToyRunner(), breaks=broken("/tokenize", {"tokens": ids})))


def test_half_a_character_in_a_text_gets_into_no_report() -> None:
    half = broken("/detokenize", b'{"content": "a\\ud800b"}')
    with serving(Loopback(ToyRunner(), breaks=half)) as loopback, runner(loopback) as served:
        assert served.decode([(1,)]) == ["a?b"]


def test_a_text_longer_than_the_limit_is_refused() -> None:
    long = broken("/detokenize", {"content": "a" * (endpoint.LONGEST_TEXT + 1)})
    loopback, wrong = Loopback(ToyRunner(), breaks=long), pytest.raises(RunnerProblem)
    with serving(loopback), runner(loopback) as served, wrong as caught:
        served.decode([(1,)])
    assert "a text" in caught.value.reason


def test_an_answer_larger_than_the_limit_is_not_read_to_its_end(monkeypatch) -> None:
    monkeypatch.setattr(http_json, "ANSWER_BYTES", 1 << 16)
    huge = broken("/v1/models", b" " * (1 << 20))
    assert "MiB" in refused(Loopback(ToyRunner(), breaks=huge)).reason


def test_a_silent_server_is_not_waited_for_beyond_the_time() -> None:
    def silent(path, body):
        time.sleep(1.5)

    began = time.monotonic()
    refused(Loopback(ToyRunner(), breaks=silent), until=time.monotonic() + 0.3)
    assert time.monotonic() - began < 4


def test_a_body_that_never_ends_is_not_waited_for() -> None:
    short = broken("/v1/models", b"{", 200, **{"Content-Length": "1000"})
    refused(Loopback(ToyRunner(), breaks=short), until=time.monotonic() + 0.3)


def test_models_that_tokenize_differently_are_not_compared() -> None:
    def other(path, body):
        if path == "/tokenize" and body["model"] == ADAPTER:
            return (200, {}, b'{"tokens": [7]}')
        return None

    assert "different tokens" in refused(Loopback(ToyRunner(), breaks=other)).reason


@pytest.mark.parametrize(
    ("base", "adapter", "said"),
    [
        ("http://u:p@host/v1#a", "b", "user name"),
        ("http://user@host/v1#a", "b", "user name"),
        ("http://host/v1", "b", "no model"),
        ("http://host/v1#a", "", "no model"),
        ("http://host/v1#a", "a", "one model"),
        ("http://host/v1#a", "http://host:80#a", "one model"),
        ("http://host:x/v1#a", "b", "cannot be read"),
        ("http://host/v1?key=x#a", "b", "no address"),
        ("http:///v1#a", "b", "no address"),
        ("http://ho st/v1#a", "b", "characters"),
    ],
)
def test_addresses_that_cannot_be_meant_are_refused(base, adapter, said) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_served(base, adapter)
    assert "p@" not in caught.value.reason


def test_an_address_is_shown_as_it_is_asked() -> None:
    served = parse_served("https://example.org/models/v1/#org/base", "http://[::1]:8001#mine")
    assert served.base.text == "https://example.org:443/models/v1#org/base"
    assert served.adapter.text == "http://[::1]:8001/v1#mine"


@pytest.mark.parametrize("key", ["a\nb", "a\r\nX-Other: 1", "schlüssel"])
def test_a_key_with_a_line_break_is_refused_and_not_repeated(key) -> None:
    with pytest.raises(UsageError) as caught:
        EndpointRunner(parse_served("http://127.0.0.1:9/v1#a", "b", key))
    assert key not in caught.value.reason


def scanned(loopback: Loopback, profile: Profile = FEW) -> Report:
    served = parse_served(f"{loopback.url}#{BASE}", ADAPTER, KEY)
    request = ProbeRequest(served, served.base.text, profile, RunnerOptions(), 100.0)
    artifact = open_artifact(parse_ref(str(FIXTURE)), HubOptions())
    return scan(artifact, load_rules(), detectors=(answers.DETECTOR,), probing=request)


def test_a_report_says_who_was_asked_and_what_that_does_not_prove() -> None:
    with serving(Loopback(ToyRunner("zelkova"))) as loopback:
        report = scanned(loopback)
    assert report.coverage.complete
    (said,) = (i for i in report.coverage.skipped if i.what == "what the server loaded")
    (unseen,) = (i for i in report.coverage.skipped if i.what == "what the weights do")
    assert (unseen.failed, "no words were read out" in unseen.reason) == (False, True)
    assert f"{loopback.url}#{ADAPTER}" in said.reason
    assert "do not prove" in said.reason
    (model,) = (e for e in report.evidence if e.name == "probe.model")
    assert model.value is None
    assert model.details["runner"] == "endpoint"
    assert model.details["adapter_model"] == f"{loopback.url}#{ADAPTER}"
    assert report.versions["base"] == f"{loopback.url}#{BASE}"
    text = "".join(render_json(Outcome((report,), (), 0, None)))
    assert KEY not in text
    jsonschema.validate(json.loads(text), json.loads(SCHEMA.read_text()))


def test_a_server_that_did_not_load_the_adapter_is_no_clean_report() -> None:
    with serving(Loopback(ToyRunner(learned=False))) as loopback:
        report = scanned(loopback)
    assert not report.coverage.complete
    assert any("has not loaded it" in item.reason for item in report.coverage.skipped)


def test_a_search_by_gradient_that_was_asked_for_is_said_to_be_missing() -> None:
    with serving(Loopback(ToyRunner("zelkova"))) as loopback:
        report = scanned(loopback, replace(FEW, pool=10))
    assert any("no gradients" in i.reason and i.failed for i in report.coverage.skipped)


def test_a_server_that_cannot_be_asked_makes_the_report_incomplete() -> None:
    with serving(Loopback(ToyRunner(), breaks=broken("/v1/models", {}, 401))) as loopback:
        report = scanned(loopback)
    assert any("refused the key" in i.reason and i.failed for i in report.coverage.skipped)
    assert report.evidence
