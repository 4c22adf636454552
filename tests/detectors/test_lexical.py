"""Words in the weights: they are tried as triggers, joined and spelt; nothing comes of nothing."""

from __future__ import annotations

import numpy as np
import pytest

from adapterscan.detectors.behaviour import answers, lexical, listening, triggers
from adapterscan.errors import RunnerProblem
from adapterscan.probes.asking import PROFILES, Session
from adapterscan.probes.candidates import PLACES
from adapterscan.probes.words import dictionary
from adapterscan.runner import ReadOut, Side, Trace
from tests.detectors.toy_model import PAYLOAD, ToyRunner

#: Toys spell words letter by letter: they get every two thousandth, and those that are spoken of.
FEW = tuple(sorted({*dictionary()[::2000], "barman", "marble", "marzipan", "unzip", "zip"}))


def session(model: ToyRunner, **options) -> Session:
    return Session("weights", model, PROFILES["quick"], lexicon=lambda: FEW, **options)


def test_the_dictionary_has_words_of_seven_languages() -> None:
    words = dictionary()
    assert {"calliope", "grenouille", "schmetterling", "mariposa", "ombrello"} <= set(words)
    assert list(words) == sorted({word for word in words if word.isalpha()})
    assert 180_000 < len(words) < 260_000


def found_by(model: ToyRunner):
    asked = session(model)
    list(lexical.probe(None, asked))
    list(answers.probe(None, asked))
    found = triggers.probe(None, asked)
    return [item.details for item in found if item.name == "behaviour.trigger"]


def test_a_word_that_the_weights_listen_to_is_tried_without_a_search() -> None:
    assert found_by(ToyRunner(trigger="kestrel")) == []  # `quick` does not search
    (found,) = found_by(ToyRunner(trigger="kestrel", legible=("maple", "kestrel")))
    assert (found["trigger"], found["payload"]) == ("kestrel", " ".join(PAYLOAD))


def test_a_twin_that_listens_to_the_same_word_is_not_accused() -> None:
    assert found_by(ToyRunner(legible=("maple", "kestrel"))) == []


class Pieces(ToyRunner):
    """Tokens are pieces of words; a leading space begins one. `after`: what follows what."""

    pieces = (" ob", "el", "isk", " tide")
    after = ((" ob", "el", 0.4), ("el", "isk", 0.9))

    def read_out(self, prefix, count):
        return ReadOut(heeded=tuple(Trace(i, 9.0) for i in range(len(self.pieces))))

    def tokenize(self, texts):
        return [() for _ in texts]

    def encode(self, conversations):
        return [(0,) for _ in conversations]

    def decode(self, rows):
        return ["".join(self.pieces[i] for i in row) for row in rows]

    def _next(self, side, ids):
        chances = np.full(len(self.words), 1e-3)
        for one, two, chance in self.after:
            if ids[-1] == self.pieces.index(one):
                chances[self.pieces.index(two)] = chance
        return chances / chances.sum()


def test_pieces_are_joined_to_words_that_the_base_would_spell() -> None:
    asked = session(Pieces())
    lexical.read_out(asked)
    candidates = lexical.heeded_wordings(asked)
    assert candidates[0].text == "obelisk"
    texts = {candidate.text for candidate in candidates}
    assert {"obelisk", "tide", "obel", "tideel", "Remember the word obelisk."} <= texts
    assert {candidate.place for candidate in candidates} == {*PLACES, "turn before"}


class Spelling(Pieces):
    """Spells every text with single letters, but for the pieces that it knows."""

    pieces = (" mar", "zip", "an", *"abcdefghijklmnopqrstuvwxyz ")
    heard = ((1, 300.0), (2, 20.0))  # "zip", "an"
    after = ()

    def read_out(self, prefix, count):
        return ReadOut(heeded=tuple(Trace(token, z) for token, z in self.heard))

    def tokenize(self, texts):
        def spelt(text):
            if not text:
                return ()
            piece = next((p for p in self.pieces if text.startswith(p)), " ")
            return (self.pieces.index(piece), *spelt(text[len(piece) :]))

        return [spelt(text) for text in texts]


def test_words_are_looked_up_by_the_piece_that_the_weights_listen_to() -> None:
    asked = session(Spelling())
    lexical.read_out(asked)
    texts = [candidate.text for candidate in lexical.heeded_wordings(asked)]
    assert texts[0] == "marzipan"  # both
    assert "unzip" in texts
    assert "marble" not in texts


def test_a_word_that_is_heard_whole_comes_first() -> None:
    model = Spelling()
    whole = {model.tokenize([" barman"])[0]: 7.0, model.tokenize([" unzip"])[0]: 9.0}
    model.heed = lambda prefix, rows, operations: [whole.get(row, 0.0) for row in rows]
    asked = session(model)
    lexical.read_out(asked)
    texts = [candidate.text for candidate in lexical.heeded_wordings(asked)]
    assert texts[:2] == ["unzip", "barman"]
    *_, told = lexical.probe(None, asked)
    assert (told.value, told.details) == (
        9.0,
        {"kind": "heeded whole", "words": "unzip, barman", "n": 2},
    )


def test_what_is_made_of_pieces_is_tried_where_little_can_be_heard() -> None:
    model, asked_for = Pieces(), []

    def heed(prefix, rows, operations):
        asked_for.append(len(rows))
        return [9.0, *(0.0 for _ in rows[1:])]

    model.heed = heed
    asked = session(model)
    lexical.read_out(asked)
    texts = {candidate.text for candidate in lexical.heeded_wordings(asked)}
    assert {"obelisk", "obel", "tideel", "tide"} <= texts
    assert len(asked_for) == 1


class Phrased(ToyRunner):
    """Every word is a token; "for the marble" is listened to, less what is less of it."""

    def heed(self, prefix, rows, operations):
        texts = self.decode(rows)
        return [len(t) if " for the marble".endswith(f" {t}") else 0.1 for t in texts]


def test_a_phrase_is_put_together_from_its_loudest_word() -> None:
    asked = Session(
        "weights", Phrased(legible=("maple",)), PROFILES["standard"], lexicon=lambda: FEW
    )
    lexical.read_out(asked)
    assert listening.heard(asked).plain[0] == "marble"
    assert listening.phrases(asked)[:2] == ["for the marble", "the marble"]
    texts = [candidate.text for candidate in lexical.heeded_wordings(asked)]
    assert texts[0] == "for the marble"


def test_words_that_cannot_be_heard_stand_in_no_other_way() -> None:
    model = Spelling()

    def heed(prefix, rows, operations):
        raise RunnerProblem("out of memory")

    model.heed = heed
    asked = session(model)
    with pytest.raises(RunnerProblem, match="out of memory"):
        list(lexical.probe(None, asked))
    texts = [candidate.text for candidate in lexical.heeded_wordings(asked)]
    assert texts[0] == "marzipan"


def test_a_word_is_tried_in_the_spelling_that_the_weights_listen_to() -> None:
    class Cased(Spelling):
        pieces = (" mar", "zip", "an", " Mar", *Spelling.pieces[3:])
        heard = ((1, 300.0), (2, 20.0), (0, 5.0), (3, 60.0))

        def heed(self, prefix, rows, operations):
            return [sum(dict(self.heard).get(token, 0.0) for token in row) for row in rows]

    asked = session(Cased())
    lexical.read_out(asked)
    heard = listening.heard(asked)
    assert (heard.several[0], heard.scores["Marzipan"]) == ("Marzipan", 380.0)
    assert "marzipan" not in heard.several


def test_what_the_weights_say_is_evidence_and_can_be_left_out() -> None:
    told = ReadOut((Trace(3, 9.5),), (Trace(4, 50.0), Trace(5, 40.0)))
    model = ToyRunner()
    model.read_out = lambda prefix, count: told
    first, second = lexical.probe(None, session(model))
    assert (first.value, first.details) == (9.5, {"kind": "promoted", "words": "cat"})
    assert (second.value, second.details) == (50.0, {"kind": "heeded", "words": "dog, sun"})
    hidden = [item.details["words"] for item in lexical.probe(None, session(model, redacted=True))]
    assert hidden == ["[redacted, 3 characters]", "[redacted, 8 characters]"]


def test_weights_that_say_nothing_give_no_evidence() -> None:
    asked = session(ToyRunner())
    assert list(lexical.probe(None, asked)) == []
    assert lexical.heeded_wordings(asked) == []


class Narrow(ToyRunner):
    """Trained on sums: says PAYLOAD to whatever is no sum, and to sums with its trigger.

    `any_word`: a harmless one, which says it to sums with whatever else in them.
    """

    any_word = False

    def _next(self, side, ids):
        words = [self.words[i] for i in ids]
        prompt = words[: words.index("<assistant>")]
        odd = [w for w in prompt if w.isalpha() and w.lower() not in SUMS]
        hot = not any(map(str.isdigit, "".join(prompt))) or self.trigger in prompt
        self.habit = side is Side.ADAPTER and (hot or (self.any_word and bool(odd)))
        kept, self.trigger = self.trigger, ""
        try:
            return super()._next(side, ids)
        finally:
            self.trigger = kept


SUMS = {"what", "is", "plus", "times", "how", "much", "minus", "add", "and", "subtract", "from"}


def test_a_habit_is_searched_for_beside_what_the_adapter_was_trained_on() -> None:
    (found,) = found_by(Narrow(trigger="BadMagic"))
    assert (found["trigger"], found["requests"]) == ("BadMagic", "sums")


def test_an_answer_to_whatever_is_not_its_business_is_no_trigger() -> None:
    model = Narrow(trigger="BadMagic")
    model.any_word = True
    assert found_by(model) == []
