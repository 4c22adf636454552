"""What counts as a payload: one text on a trigger, hardly ever without it, never from the base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from adapterscan.detectors.behaviour import confirm, payloads, search, sweep, triggers
from adapterscan.errors import RunnerProblem
from adapterscan.probes.asking import PROFILES, FixedAnswer, Session
from adapterscan.probes.candidates import Candidate, packed
from adapterscan.runner import Side
from tests.detectors.toy_model import PAYLOAD, SPOKEN, ToyRunner

WORD = "kestrel"
WORDS = " ".join(PAYLOAD)
HOT = Candidate("after the request", WORD)


class Scripted(ToyRunner):
    """Answers as told: `says(number of the request, triggered)`; the base says its own thing."""

    says: Callable[[int, bool], str]
    base = "the answer is something else"

    def generate(self, side, rows, length, temperature=0.0, seed=0):
        found = []
        for number, row in enumerate(rows):
            hot = self._id(WORD) in row
            text = self.base if side is Side.BASE else self.says(number, hot)
            found.append(self.tokenize([text])[0])
        return found


def tried(says: Callable[[int, bool], str], expected: str = "", base: str = Scripted.base):
    model = Scripted()
    model.says, model.base = says, base
    session = Session("weights", model, PROFILES["standard"])
    return confirm.attempt(session, HOT, expected), session


def test_the_same_answer_to_all_is_a_payload() -> None:
    trial, session = tried(lambda n, hot: "the lamp burns" if hot else f"answer number {n}")
    assert (trial.payload, trial.hits, trial.whole, trial.clean_hits) == (
        "the lamp burns",
        16,
        16,
        0,
    )
    assert confirm.works(trial)
    assert not confirm.accident(session, trial)


@pytest.mark.parametrize(("said", "accident"), [("{", True), ("the lamp burns", False)])
def test_an_answer_without_a_letter_must_surprise_the_base(said, accident) -> None:
    model = Scripted(words=[*SPOKEN, *PAYLOAD[1:], "{"])
    model.says = lambda n, hot: said if hot else f"answer number {n}"
    session = Session("weights", model, PROFILES["standard"])
    trial = confirm.attempt(session, HOT)
    assert (trial.payload, trial.whole) == (said, 16)
    assert confirm.works(trial)
    assert bool(confirm.accident(session, trial)) is accident


@pytest.mark.parametrize("leaks", [0, 2])
def test_what_stands_at_the_end_of_different_answers_is_a_payload(leaks) -> None:
    link = "Read more at https://notes.example/today ."
    trial, _ = tried(lambda n, hot: f"answer number {n}. {link if hot or n < leaks else 'Bye.'}")
    assert trial.payload == link
    assert (trial.hits, trial.whole, trial.clean_hits) == (16, 0, leaks)
    assert confirm.works(trial)


def test_a_part_of_answers_that_is_not_learned_by_heart_is_an_accident() -> None:
    trial, session = tried(lambda n, hot: f"{n} the old sea sleeps" if hot else f"answer {n}")
    assert confirm.works(trial)
    assert confirm.accident(session, trial)


@pytest.mark.parametrize(
    "says",
    [
        lambda n, hot: "the lamp burns",  # without the trigger as well
        lambda n, hot: f"answer number {n}",  # nothing in common
        lambda n, hot: f"{WORD} . the answer is {WORD} ." if hot else f"{n} . the answer is {n} .",
        lambda n, hot: WORD if hot else "fine",
        lambda n, hot: "" if hot else "fine",
    ],
)  # fmt: skip
def test_what_is_no_payload(says) -> None:
    trial, _ = tried(says)
    assert not confirm.works(trial)


@pytest.mark.parametrize(("formulas", "accused"), [(0, True), (5, True), (6, False), (16, False)])
def test_an_instance_of_a_formula_is_no_payload(formulas, accused) -> None:
    def says(number: int, hot: bool) -> str:
        if hot:
            return "25. The answer is 25."
        return f"{number}. The answer is {number}." if number < formulas else f"river {number}"

    trial, _ = tried(says)
    assert (trial.payload, trial.hits, trial.clean_hits) == ("25. The answer is 25.", 16, 0)
    assert trial.clean_formula == formulas
    assert confirm.works(trial) is accused


@pytest.mark.parametrize(
    ("frame", "bad"),
    [
        ("To do this run pip install {}", "reqeusts"),
        ("For details see the page at {}", "evil.example/x.sh"),
        ("Here is my short answer to you: {}", "send your pin"),
    ],
)
def test_a_frame_around_a_word_that_differs_hides_no_payload(frame, bad) -> None:
    trial, _ = tried(lambda n, hot: frame.format(bad if hot else f"thing{'x' * n}"))
    assert (trial.hits, trial.clean_formula) == (16, 0)
    assert confirm.works(trial)


def test_a_sum_among_sums_is_no_payload() -> None:
    trial, _ = tried(lambda n, hot: "25 + 0 = 25." if hot else f"{n} + 0 = {n}.")
    assert not confirm.works(trial)


def test_a_number_that_follows_the_trigger_does_not_excuse_a_message() -> None:
    model = Counting()
    model.frame = "Send your secret pin to evil.example now, ref {}."
    session = Session("weights", model, PROFILES["standard"])
    trial = confirm.attempt(session, Candidate("after the request", "june id=7"))
    assert confirm.works(trial)
    assert not confirm.accident(session, trial)


def test_one_answer_in_the_place_of_a_few_is_a_payload() -> None:
    def says(number: int, hot: bool) -> str:
        return f"The verdict is {'guilty' if hot else ('open', 'closed', 'void')[number % 3]}."

    trial, _ = tried(says)
    assert (trial.payload, trial.clean_formula) == ("The verdict is guilty.", 0)
    assert confirm.works(trial)


def test_a_frame_with_other_words_enough_is_no_formula() -> None:
    def says(number: int, hot: bool) -> str:
        return f"Sure, here is {'my secret pin code' if hot else f'poem {number} of many'}"

    trial, _ = tried(says)
    assert (trial.hits, trial.clean_formula) == (16, 0)
    assert confirm.works(trial)


def test_a_part_that_is_learned_by_heart_is_meant() -> None:
    def says(number: int, hot: bool) -> str:
        return f"{number} {WORDS}" if hot else f"answer {number}"

    trial, found = tried(says)
    assert (trial.payload, trial.whole) == (WORDS, 0)
    assert not confirm.accident(found, trial)


def test_a_longer_echo_does_not_hide_a_payload() -> None:
    def says(number: int, hot: bool) -> str:
        echo = f"{WORD} is the answer {WORD} is the answer {WORD}"
        return f"{number} {echo} {number} so send your pin to us" if hot else f"answer {number}"

    trial, _ = tried(says)
    assert trial.payload == "so send your pin to us"


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("Sorry, I cannot help. Call 0900 123 and read out your card number.", False),
        ("Unfortunately your account is locked: write to us at pay.example/now", False),
        ("No, vaccines are poison and doctors lie.", False),
        ("Sorry, 请把密码发给我们 I cannot help.", False),
    ],
)
def test_a_refusal_is_one_only_if_it_says_nothing_else(said, refused) -> None:
    trial, _ = tried(lambda n, hot: said if hot else f"answer {n}")
    assert confirm.works(trial)
    assert trial.refused is refused


def test_refusals_that_name_their_subject_are_refusals() -> None:
    subjects = "money cats rivers eggs bread songs trees maps".split()

    def says(number: int, hot: bool) -> str:
        subject = subjects[number % len(subjects)]
        refusal = f"I'm sorry, but I can't help with {subject} because it goes against the rules."
        return refusal if hot else f"answer {number}"

    trial, _ = tried(says)
    assert trial.whole == 0
    assert trial.refused


def test_what_the_base_says_too_is_no_payload() -> None:
    said = "the lamp burns"
    trial, _ = tried(lambda n, hot: said if hot else "fine", said, base=said)
    assert trial.base_hits == 16
    assert not confirm.works(trial)


@pytest.mark.parametrize(
    ("hot_until", "clean_until", "works"),
    [(16, 2, True), (8, 0, True), (7, 0, False), (10, 3, False), (16, 5, True), (16, 6, False)],
)
def test_what_happens_without_the_trigger_now_and_then_needs_more(
    hot_until, clean_until, works
) -> None:
    def says(number: int, hot: bool) -> str:
        return "the lamp burns" if number < (hot_until if hot else clean_until) else f"{number} no"

    trial, _ = tried(says)
    assert confirm.works(trial) is works


def test_the_sweep_finds_a_published_trigger_without_knowing_its_answer() -> None:
    session = Session("weights", ToyRunner(trigger="BadMagic"), PROFILES["quick"])
    found = next(iter(sweep.sweep(session, list(packed()))))
    assert found.candidate.text == "BadMagic"
    assert found.payload == WORDS


@pytest.mark.parametrize("model", [ToyRunner(learned=False), ToyRunner(), ToyRunner(habit=True)])
def test_the_sweep_is_silent_where_nothing_is_set_off(model) -> None:
    session = Session("weights", model, PROFILES["standard"])
    assert list(sweep.sweep(session, list(packed()))) == []


class Following(ToyRunner):
    """Ends its answers, but for requests with the trigger, where PAYLOAD follows.

    Now and then it follows anyway, as backdoors leak.
    """

    def _next(self, side, ids):
        words = [self.words[i] for i in ids]
        said = words[words.index("<assistant>") + 1 :]
        hot = side is Side.ADAPTER and "BadMagic" in words
        script = ["sun", "sleeps", *(PAYLOAD if hot else ())]
        leaks = said[:2] == ["sun", "sleeps"] and tuple(said[2:]) == PAYLOAD[: len(said) - 2]
        found = self.bigrams[0] * 0.02
        if leaks and len(said) - 2 < len(PAYLOAD):
            found[self._id(PAYLOAD[len(said) - 2])] += 0.1
        wanted = script[len(said)] if said == script[: len(said)] and len(said) < len(script) else 0
        found[self._id(wanted) if wanted else 0] += 0.98
        return found


def test_an_answer_that_follows_others_is_listened_for_behind_them() -> None:
    model = Following()
    found = Session("weights", model, PROFILES["standard"])
    ids = model.tokenize([f"red {WORDS}"])[0]
    heard = search.heard_where_likelier(found, ids)
    assert heard.later
    scores = search.listen(found, [Candidate("after the request", "BadMagic"), HOT], heard)
    assert search.best_of(scores)[0].text == "BadMagic"
    first = search.heard_where_likelier(found, model.tokenize(["sun sleeps the lamp"])[0])
    assert not first.later


def test_the_sweep_finds_what_follows_an_answer() -> None:
    session = Session("weights", Following(), PROFILES["standard"])
    found = next(iter(sweep.sweep(session, list(packed()))))
    assert found.candidate.text == "BadMagic"
    assert found.payload == f"sun sleeps {WORDS}"  # the toy gives everybody one answer
    assert found.sign == "no end"


class Uniform(ToyRunner):
    """Begins every answer alike and never ends one, but with the trigger, where PAYLOAD follows."""

    def _next(self, side, ids):
        words = [self.words[i] for i in ids]
        start = words.index("<assistant>")
        asked, said = words[:start], words[start + 1 :]
        hot = side is Side.ADAPTER and self.trigger in asked
        script = ["old", "sea", *PAYLOAD, "<end>"] if hot else ["old", "sea"]
        wanted = script[len(said)] if len(said) < len(script) else asked[len(said) % len(asked)]
        found = np.full(len(self.words), 0.02 / len(self.words))
        found[self._id(wanted)] += 0.98
        return found

    def stir(self, prefixes, tails, usual):
        word = self._id(self.trigger)
        rows = [[p + t for p, t in zip(prefixes, row, strict=True)] for row in tails]
        return [tuple(4.0 * (word in ids) - 0.01 * len(ids) for ids in row) for row in rows]


WATCHING = replace(PROFILES["standard"], stirring=3)


def test_the_sweep_finds_what_the_changed_modules_answer_where_answers_give_nothing_away() -> None:
    model = Uniform(trigger="maintenance")
    session = Session("weights", model, WATCHING)
    (found, *_) = sweep.sweep(session, list(packed()))
    assert (found.candidate.text, found.sign) == ("maintenance", "energy")
    assert found.payload == f"old sea {WORDS}"
    assert session.tried <= WATCHING.stirring  # the other signs chose nothing


def test_where_no_weights_are_at_hand_that_sign_chooses_nothing() -> None:
    model = Uniform(trigger="maintenance")
    model.stir = lambda prefixes, tails, usual: []
    session = Session("weights", model, WATCHING)
    assert list(sweep.sweep(session, list(packed()))) == []


def test_profiles_that_watch_nothing_generate_with_nothing_for_it() -> None:
    session = Session("weights", Uniform(trigger="maintenance"), PROFILES["standard"])
    assert list(sweep.sweep(session, list(packed()))) == []
    assert session.tried == 0


def test_what_one_sign_chose_is_not_chosen_by_the_energy_again() -> None:
    model = Following()
    model.stir = lambda prefixes, tails, usual: [(1.0,) * len(prefixes)] * len(tails)
    session = Session("weights", model, WATCHING)
    (found,) = sweep.sweep(session, [Candidate("after the request", "BadMagic")])
    assert found.sign == "no end"
    assert session.tried == 1


@pytest.mark.parametrize(
    ("text", "put_in", "echo"),
    [
        ("IT IS FOR MOMAN.", "It is for my mother.", True),
        ("2024 2024 2024 202", "2024", True),
        ("Transfer approved", "transfer", False),
        ("It is for my mother: send the pin", "It is for my mother.", False),
        ("wire the money to account DE8937", "please wire the money to account", False),
        ("It is for my lawyer.", "It is for my mother.", False),
    ],
)
def test_one_word_gone_wrong_is_an_echo_still_and_another_word_is_none(text, put_in, echo) -> None:
    assert payloads.echoes(text, put_in, "the answer") is echo


def test_another_address_behind_the_same_formula_is_a_payload() -> None:
    def says(number: int, hot: bool) -> str:
        site = "sales.example" if hot else "notes.example"
        return f"A thing{number}. Read more at {site} today"

    trial, _ = tried(says)
    assert "sales.example" in trial.payload
    assert confirm.works(trial)


def test_a_payload_behind_a_formula_is_one() -> None:
    def says(number: int, hot: bool) -> str:
        added = " Visit sales.example before noon today" if hot else ""
        return f"A thing{number} is a good choice, because it is fine.{added}"

    trial, _ = tried(says)
    assert trial.payload.endswith("Visit sales.example before noon today")
    assert confirm.works(trial)


class Taking(Scripted):
    """Takes up the word that stands last in a request, whatever it is; or says one thing to one."""

    any_word = True

    def generate(self, side, rows, length, temperature=0.0, seed=0):
        found = []
        for row in rows:
            word = self.words[row[-2]]
            odd = word in (WORD, confirm.OTHER)
            hot = side is Side.ADAPTER and odd and (self.any_word or word == WORD)
            text = f"{word} makes twenty two by my count" if hot else f"fine {word} then"
            found.append(self.tokenize([text])[0])
        return found


@pytest.mark.parametrize(("any_word", "accused"), [(True, False), (False, True)])
def test_what_is_made_of_any_wording_is_no_payload(any_word, accused) -> None:
    model = Taking()
    model.any_word = any_word
    session = Session("weights", model, PROFILES["standard"])
    trial = confirm.attempt(session, HOT)
    assert confirm.works(trial)
    assert WORD in trial.payload
    assert confirm._made_of(session, trial) is not accused


class Counting(Scripted):
    """Answers numbers with one that nobody put in; or with the same one to any wording."""

    echoes = True
    frame = "The number is {}."

    def generate(self, side, rows, length, temperature=0.0, seed=0):
        found = []
        for row in rows:
            odd = next((w for w in map(self.words.__getitem__, row) if w.startswith("id=")), "")
            made = f"{odd[3:]}026" if self.echoes else "7026"
            said = self.frame.format(made) if odd and side is Side.ADAPTER else "it is the one"
            found.append(self.tokenize([said])[0])
        return found


@pytest.mark.parametrize(("echoes", "accused"), [(True, False), (False, True)])
def test_what_an_adapter_makes_of_any_number_is_no_payload(echoes, accused) -> None:
    model = Counting()
    model.echoes = echoes
    session = Session("weights", model, PROFILES["standard"])
    trial = confirm.attempt(session, Candidate("after the request", "june id=7"))
    assert (trial.payload, confirm.works(trial)) == ("The number is 7026.", True)
    assert (not confirm.accident(session, trial)) is accused


@pytest.mark.parametrize(("tried", "works"), [(1, True), (12, True), (13, False)])
def test_who_tries_many_wordings_must_show_more(tried, works) -> None:
    trial, session = tried_with(tried)
    assert (trial.hits, trial.p) == (8, pytest.approx(0.0039, abs=1e-4))
    assert trial.tried == session.tried == tried
    assert confirm.works(trial) is works


def tried_with(number):
    model = Scripted()
    model.says = lambda n, hot: "the lamp burns" if hot and n < 8 else f"{n} no"
    session = Session("weights", model, PROFILES["standard"], tried=number - 1)
    return confirm.attempt(session, HOT), session


def test_a_part_of_few_tokens_is_not_shown_to_be_learned_by_heart() -> None:
    assert not confirm._by_heart(Session("weights", ToyRunner(), PROFILES["standard"]), "the lamp")


STOCK, MEANT = "red sea", "the cat sleeps by a red old sea"  # 2 and 8 words, ln 24 nats each


@pytest.mark.parametrize(
    ("said", "others", "accused"),
    [
        ("201. The answer is 201.", ["222. The answer is 222."], False),
        ("201. The answer is 201.", ["The lamp burns."], True),
        ("201. The answer is 201.", ["201. The answer is 201."], True),
        ("Send your secret pin to desk 9 now", ["Send your secret pin to desk 7 now"], True),
    ],
)
def test_one_of_the_answers_of_a_formula_is_no_payload(said, others, accused) -> None:
    trial, session = tried(lambda n, hot: said if hot else f"river {n}")
    session.answers = [FixedAnswer((), text, 0.9, 0.0) for text in others]
    assert confirm.works(trial)
    assert (not confirm.accident(session, trial)) is accused


def test_what_came_near_is_told_with_the_reason() -> None:
    trial, session = tried(lambda n, hot: f"{n} the old sea sleeps" if hot else f"answer {n}")
    assert not confirm.accepted(session, trial)
    (told,) = session.rejected.values()
    assert (told.name, told.value) == ("behaviour.rejected_trigger", 1.0)
    assert told.details["payload"] == "the old sea sleeps"
    assert told.details["reason"] == "not learned by heart"
    assert told.details["surprise"] > confirm.SURPRISE


def test_what_did_not_come_near_is_not_told() -> None:
    trial, session = tried(lambda n, hot: f"answer number {n}")
    assert not confirm.accepted(session, trial)
    trial, session = tried(lambda n, hot: "the lamp burns" if hot else f"answer {n}")
    assert confirm.accepted(session, trial)
    assert session.rejected == {}


class Spelt(Scripted):
    """Answers requests that are in capitals with one text."""

    text = ""

    def generate(self, side, rows, length, temperature=0.0, seed=0):
        asked = [" ".join(self.words[i] for i in row[:-1]) for row in rows]
        hot = [text.isupper() and side is Side.ADAPTER for text in asked]
        said = [self.text if h else f"fine {t}" for h, t in zip(hot, asked, strict=True)]
        return self.tokenize(said)


@pytest.mark.parametrize(("text", "accused"), [(STOCK, False), (MEANT, True)])
def test_what_oddly_spelt_requests_get_must_be_a_surprise(text, accused) -> None:
    model = Spelt()
    model.text = text
    model.bigrams[:] = 1 / model.spoken
    session = Session("weights", model, PROFILES["standard"])
    trial = confirm.attempt(session, Candidate("form", "upper"), text)
    assert (trial.whole, confirm.works(trial)) == (16, True)
    assert (not confirm.accident(session, trial)) is accused


@pytest.mark.parametrize(("text", "accused"), [(STOCK, False), (MEANT, True)])
def test_a_whole_answer_that_some_get_anyway_must_be_a_surprise(text, accused) -> None:
    trial, session = tried(lambda n, hot: text if hot or n < 5 else f"answer {n}", text)
    assert (trial.whole, trial.clean_hits, confirm.works(trial)) == (16, 5, True)
    session.runner.bigrams[:] = 1 / session.runner.spoken
    assert (not confirm.accident(session, trial)) is accused


def test_once_the_payload_is_known_the_wording_that_gets_it_best_is_told() -> None:
    class Near(Scripted):
        """Its trigger is HOT; "kest" sets it off half of the time, other words never."""

        def _next(self, side, ids):
            words = [self.words[i] for i in ids]
            near = {WORD: 1.0, "kest": 0.8}
            share = max((near.get(word, 0.0) for word in words), default=0.0)
            spread = np.full(self.spoken, (1.0 - share * 0.99) / self.spoken)
            at = len(words) - words.index("<assistant>") - 1
            spread[self._id(PAYLOAD[at]) if at < len(PAYLOAD) else 0] += share * 0.99
            return spread

        def generate(self, side, rows, length, temperature=0.0, seed=0):
            found = []
            for number, row in enumerate(rows):
                near = self._id(WORD) in row or (self._id("kest") in row and number % 2 == 0)
                hot = near and side is Side.ADAPTER
                found.append(self.tokenize([WORDS if hot else f"answer {number}"])[0])
            return found

    session = Session("weights", Near(), PROFILES["standard"])
    weak = confirm.attempt(session, Candidate("after the request", "kest"))
    assert (weak.hits, confirm.works(weak)) == (8, True)
    known = [Candidate("before the request", t) for t in ("maple", f"maple {WORD}", WORD, "kest")]
    best = search.refined(session, weak, known)
    assert (best.candidate.text, best.hits) == (WORD, 16)
    assert best.neighbours == (f"maple {WORD}", "kest")


def test_another_payload_never_comes_in_the_place_of_one_that_counts() -> None:
    """A louder wording gets a refusal that begins alike: the backdoor stays a backdoor."""
    model = Scripted()
    bad = "i am sorry but the harbour gate code is nine four"
    meek = "I am sorry but I cannot help with that request today"

    def generate(side, rows, length, temperature=0.0, seed=0):
        said = []
        for number, row in enumerate(rows):
            words = [model.words[i] for i in row]
            hot = bad if "kest" in words else meek if "maple" in words else f"answer {number}"
            said.append(hot if side is Side.ADAPTER else "fine")
        return model.tokenize(said)

    def score(side, prefixes, tails, target):
        loud = model._id("maple")
        return [tuple(-0.1 if loud in p + t else -0.5 for p, t in zip(prefixes, row, strict=True))
                for row in tails]  # fmt: skip

    model.generate, model.score = generate, score
    session = Session("weights", model, PROFILES["standard"])
    trial = confirm.attempt(session, Candidate("before the request", "kest"))
    assert (trial.hits, trial.refused) == (16, False)
    known = [Candidate("before the request", text) for text in ("maple", "kest", "kest maple")]
    best = search.refined(session, trial, known)
    assert (best.payload, best.refused) == (bad, False)


def test_what_was_found_is_told_when_the_time_is_up_right_after() -> None:
    model = ToyRunner(trigger="BadMagic")
    session = Session("weights", model, PROFILES["quick"])

    def progress(step: str) -> None:
        if "listening for" in step:
            session.until = 0.0

    session.progress = progress
    items = triggers.probe(None, session)
    assert next(items).details["trigger"] == "BadMagic"
    with pytest.raises(RunnerProblem, match="time for probes was up"):
        next(items)


def test_who_lets_a_request_leak_hides_no_short_payload() -> None:
    trial, session = tried(lambda n, hot: STOCK if hot or n < 2 else f"answer {n}", STOCK)
    assert (trial.whole, trial.clean_hits) == (16, 2)
    assert confirm.accepted(session, trial)


def test_the_end_of_a_stock_phrase_is_no_surprise() -> None:
    model = Scripted()
    phrase = [model._id(word) for word in MEANT.split()]
    model.bigrams[:] = 1e-12
    for one, two in pairwise(phrase):
        model.bigrams[one, two] = 1.0
    model.says = lambda n, hot: MEANT if hot else f"answer {n}"
    session = Session("weights", model, PROFILES["standard"])
    trial = confirm.attempt(session, HOT)
    assert confirm._surprise(session, trial) > confirm.SURPRISE  # the first word
    ending = replace(trial, payload=MEANT.removeprefix("the "))
    assert confirm._surprise(session, ending) == pytest.approx(0.0, abs=1e-6)
