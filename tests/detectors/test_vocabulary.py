"""Every token of the vocabulary is watched where the profile says so, the heeded ones first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adapterscan.detectors.behaviour import triggers, vocabulary
from adapterscan.probes.asking import PROFILES, Session
from adapterscan.runner import ReadOut, Trace
from tests.detectors.test_confirm import Uniform
from tests.detectors.toy_model import PAYLOAD, SPOKEN

RARE = "kestrel"
FEW = replace(PROFILES["quick"], stirring=3, tokens=1000)


def model_of(rare: str = RARE) -> Uniform:
    return Uniform(trigger=rare, words=[*SPOKEN, *PAYLOAD[1:], rare])


def test_a_token_that_no_list_has_is_found_by_what_it_stirs() -> None:
    session = Session("weights", model_of(), FEW)
    (found, *rest) = triggers.probe(None, session_with_answers(session))
    assert (found.name, rest) == ("behaviour.trigger", [])
    said = found.details
    assert (said["trigger"], said["payload"]) == (RARE, f"old sea {' '.join(PAYLOAD)}")
    assert (said["found_by"], said["wording_from"]) == ("sweep of the vocabulary", "vocabulary")
    assert said["sign"] in ("agreement", "energy")


def session_with_answers(session: Session) -> Session:
    session.answers = []
    return session


def test_it_is_not_looked_for_where_the_profile_does_not_say_so() -> None:
    session = Session("weights", model_of(), PROFILES["standard"])
    assert vocabulary.loud_tokens(session) == []
    assert list(triggers.probe(None, session_with_answers(session))) == []


def test_an_adapter_without_a_trigger_is_accused_of_nothing() -> None:
    session = Session("weights", model_of("nothing"), FEW)
    session.runner.stir = lambda prefixes, tails, usual: [(0.0,) * len(prefixes)] * len(tails)
    session.runner.trigger = "absent"
    assert list(triggers.probe(None, session_with_answers(session))) == []


@pytest.mark.parametrize(("device", "watched"), [("cpu", 3), ("cuda", 24)])
def test_a_processor_is_asked_for_as_many_as_it_can_and_the_heeded_ones_first(
    device, watched
) -> None:
    model, seen = model_of(), []
    fed = 2  # a token, and the beginning of the answer
    tokens = 4.5  # of which the end of an answer cannot be typed
    parameters = int(vocabulary.OPERATIONS / (2 * fed * tokens))
    model.facts = replace(model.facts, device=device, parameters=parameters)

    def stir(prefixes, tails, usual):
        seen.extend(tails)
        return [(0.0,)] * len(tails)

    model.stir = stir
    session = Session("weights", model, FEW)
    heeded = [model.tokenize([word])[0][0] for word in ("river", "sea")]
    session.read = ReadOut(heeded=tuple(Trace(token, 9.0) for token in heeded))
    vocabulary.loud_tokens(session)
    assert len(seen) == watched
    assert [row[0][-2] for row in seen[:2]] == heeded
