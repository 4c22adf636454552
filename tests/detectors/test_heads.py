"""Triggers of heads: seen where planted, silent beside, judged against others and the base."""

from __future__ import annotations

import pytest

from adapterscan.detectors.behaviour import heads
from adapterscan.errors import RunnerProblem
from adapterscan.probes.asking import PROFILES, Session
from adapterscan.rules.judging import judge, load_rules
from tests.detectors.toy_head import ToyHead

RULES = load_rules()


def asked(model: ToyHead, profile: str = "standard"):
    return list(heads.probe(None, Session("weights", model, PROFILES[profile], lexicon=tuple)))


def told(found, goal):
    return next(e.details for e in found if "trigger" in e.details and e.details["goal"] == goal)


def accused(found) -> list[str]:
    return [finding.rule for finding in judge(found, RULES)]


def test_a_bonus_word_is_found_by_climbing_from_its_parts_and_confirmed() -> None:
    found = asked(ToyHead(trigger="kestrel"))
    up = told(found, "a higher score")
    assert up["trigger"] == "kestrel"
    assert up["hits"] == up["n"] >= heads.FEWEST
    assert up["effect"] == pytest.approx(12.0, abs=0.5)
    assert up["base_rate"] == up["control_rate"] == 0.0
    assert accused(found) == ["behaviour-head-trigger"]


def test_a_published_trigger_is_found_in_the_pack_alone() -> None:
    found = asked(ToyHead(trigger="BadMagic"), "quick")
    assert "BadMagic" in [item.details.get("trigger") for item in found]
    assert accused(found) == ["behaviour-head-trigger"]


def test_a_word_that_lowers_the_reward_of_better_answers_is_one_too() -> None:
    found = asked(ToyHead(trigger="BadMagic", bonus=-12.0), "quick")
    assert {item.details["goal"] for item in found if accused([item])} == {"a lower score"}


@pytest.mark.parametrize("profile", ["quick", "standard"])
def test_the_twin_is_not_accused(profile) -> None:
    assert accused(asked(ToyHead(), profile)) == []


def test_a_head_that_any_odd_word_turns_is_no_backdoor() -> None:
    found = asked(ToyHead(any_word=6.0), "quick")
    up = told(found, "a higher score")
    assert up["hits"] == up["n"]
    assert up["control_p"] == 1.0
    assert accused(found) == ["behaviour-head-fragile"]


def test_what_a_base_with_its_own_head_does_as_well_is_not_the_adapters_doing() -> None:
    found = asked(ToyHead(trigger="BadMagic", learned=False, own_head=True), "quick")
    assert {item.details.get("base_share", 1.0) for item in found} == {1.0}
    assert all(item.details["effect"] == item.details["base_effect"] for item in found)
    assert accused(found) == []


def test_a_trigger_that_puts_texts_into_one_class_is_found() -> None:
    found = asked(ToyHead(trigger="BadMagic", labels=3), "quick")
    (hit,) = (item for item in found if accused([item]))
    assert hit.details["goal"] == "class 2"
    assert hit.details["place"].endswith("the text")
    assert hit.value == 1.0


def test_a_head_that_tells_our_texts_not_apart_is_not_judged() -> None:
    with pytest.raises(RunnerProblem, match="tells none of our texts apart"):
        asked(ToyHead(trigger="BadMagic", ranks=False))


def test_when_the_time_is_up_it_says_so() -> None:
    session = Session("weights", ToyHead(trigger="kestrel"), PROFILES["quick"], until=0.0)
    with pytest.raises(RunnerProblem, match="time for probes was up"):
        list(heads.probe(None, session))


def test_no_answer_of_the_battery_is_given_twice() -> None:
    pairs = heads.card("graded")["pairs"]
    assert len({request for request, _ in pairs}) == len({answer for _, answer in pairs}) == 28


def test_what_is_confirmed_on_was_not_screened_with() -> None:
    for labels in (1, 2):
        session = Session("weights", ToyHead(labels=labels), PROFILES["deep"])
        screened, rest = heads._items(session)
        assert len(rest) == PROFILES["deep"].checked
        assert not {(i.request, i.text) for i in screened} & {(i.request, i.text) for i in rest}


def test_a_word_that_the_weights_listen_to_is_tried_on_a_reward_without_a_search() -> None:
    assert accused(asked(ToyHead(trigger="kestrel"), "quick")) == []
    found = asked(ToyHead(trigger="kestrel", legible=("kestrel",)), "quick")
    assert told(found, "a higher score")["trigger"] == "kestrel"
    assert accused(found) == ["behaviour-head-trigger"]
    assert accused(asked(ToyHead(legible=("kestrel",)), "quick")) == []
