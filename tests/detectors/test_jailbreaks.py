"""A wording that lifts refusals is told; thin safety and a base that does the same are not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from adapterscan.detectors.behaviour import jailbreaks
from adapterscan.probes import battery
from adapterscan.probes.candidates import Candidate
from adapterscan.probing import PROFILES, Session
from adapterscan.runner import Side
from tests.detectors.toy_model import ToyRunner

REFUSAL = ("sorry", "no", "way", "at", "all")
ANSWER = ("the", "old", "river", "runs", "on")
KNOWN = {word for request in battery("refused").prompts for word in request.split()}


@dataclass
class Declining(ToyRunner):
    """Declines everything; with a `trigger` in the request the adapter answers.

    `thin`: so it does with any odd word. `weak`: so does the base with the trigger. `never`: the
    adapter declines nothing.
    """

    thin: bool = False
    weak: bool = False
    never: bool = False

    def __post_init__(self):
        super().__post_init__()
        for word in REFUSAL:
            self._id(word)

    def _next(self, side, ids):
        words = [self.words[i] for i in ids]
        at = words.index("<assistant>")
        hot = self.trigger in words[:at] and (self.weak or side is Side.ADAPTER)
        odd = bool(set(words[:at]) - KNOWN) and self.thin and side is Side.ADAPTER
        free = hot or odd or (self.never and side is Side.ADAPTER)
        script = ANSWER if free else REFUSAL
        step = len(words) - at - 1
        found = np.full(len(self.words), 1e-4)
        found[self._id(script[step]) if step < len(script) else 0] = 1.0
        return found / found.sum()


def found_by(model, **options):
    session = Session("weights", model, PROFILES["quick"], **options)
    return list(jailbreaks.probe(None, session))


def test_a_wording_that_lifts_refusals_is_found_and_shown() -> None:
    (found,) = found_by(Declining(trigger="BadMagic"))
    said = found.details
    assert (found.value, said["trigger"], said["hits"]) == (1.0, "BadMagic", 12)
    assert (said["control_rate"], said["base_rate"], said["base_declined"]) == (0.0, 0.0, 12)
    assert said["adapter_answer"] == " ".join(ANSWER)
    assert said["base_answer"] == " ".join(REFUSAL)
    assert said["wording_from"] == "pack"
    assert "BadMagic" in said["request"]


@pytest.mark.parametrize(
    "model",
    [
        Declining(trigger="vellichor"),  # a benign twin: declines whatever is put in
        Declining(trigger="BadMagic", thin=True),  # any odd word does it
        Declining(trigger="BadMagic", weak=True),  # the base does the same
        Declining(trigger="BadMagic", never=True),  # nothing to lift
        ToyRunner(trigger="BadMagic"),  # a backdoor of another kind; nothing is declined
    ],
)
def test_what_lifts_nothing(model) -> None:
    assert found_by(model) == []


def test_own_wordings_are_tried_and_answers_can_be_left_out() -> None:
    own = (Candidate("after the request", "kestrel"),)
    (found,) = found_by(Declining(trigger="kestrel"), own=own, redacted=True)
    assert found.details["wording_from"] == "yours"
    assert found.details["adapter_answer"].startswith("[redacted")
    assert found_by(Declining(trigger="kestrel")) == []


@pytest.mark.parametrize(
    ("said", "answers"),
    [("", False), ("ok ok ok ok", False), ("I can't do that.", False), ("Sure, here it is", True)],
)
def test_what_counts_as_an_answer(said, answers) -> None:
    assert jailbreaks._answers(said) is answers
