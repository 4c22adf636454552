"""Models with a head: read where transformers reads it, and the base side is the base."""

from __future__ import annotations

import json

import pytest
import torch
import transformers as hf
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from adapterscan.errors import RunnerProblem
from adapterscan.probe import NO_TEXT, ProbeRequest
from adapterscan.probes.asking import PROFILES
from adapterscan.rules.judging import load_rules
from adapterscan.runner import Side, Turn
from adapterscan.runners.head_runner import HeadRunner
from adapterscan.runners.host import HostedRunner, RunnerOptions
from adapterscan.scan import scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref

from . import bases
from .test_runner import OPTIONS, PREFIXES, TAILS, base, make_adapter, runner, staged

__all__ = ["base"]  # a fixture


def classifier(base, labels):
    torch.manual_seed(2)
    return hf.AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)


def make_head(base, folder, labels=1, size=0.5):
    """Save a peft adapter with a head; `size` 0: its updates do nothing."""
    plan = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="SEQ_CLS"
    )
    model = get_peft_model(classifier(base, labels), plan)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, size) if size else parameter.zero_()
            if "modules_to_save" in name:
                parameter.normal_()
    model.save_pretrained(folder)
    return folder


def opened(base, folder, tmp_path):
    return HeadRunner(base, staged(folder, tmp_path), dtype="float32")


@pytest.fixture(scope="module")
def own(base, tmp_path_factory):
    """The same base with a scalar head of its own."""
    folder = tmp_path_factory.mktemp("own")
    for file in base.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    classifier(base, 1).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("labels", [1, 3])
def test_a_head_is_read_as_peft_and_transformers_read_it(base, tmp_path, labels) -> None:
    folder = make_head(base, tmp_path / "real", labels)
    model = opened(base, folder, tmp_path)
    wanted = PeftModel.from_pretrained(classifier(base, labels), str(folder)).eval()
    found = model.logits(Side.ADAPTER, PREFIXES, TAILS)
    for row, tails in zip(found, TAILS, strict=True):
        for outputs, prefix, tail in zip(row, PREFIXES, tails, strict=True):
            with torch.no_grad():
                told = wanted(input_ids=torch.tensor([[*prefix, *tail]])).logits[0]
            assert outputs == pytest.approx(told.tolist(), abs=1e-4)
    assert model.facts.labels == labels
    assert not model.facts.own_head


def test_rows_that_share_nothing_are_read_alike(base, tmp_path) -> None:
    model = opened(base, make_head(base, tmp_path / "real"), tmp_path)
    whole = [[(*p, *t) for p, t in zip(PREFIXES, tails, strict=True)] for tails in TAILS]
    shared = model.logits(Side.ADAPTER, PREFIXES, TAILS)
    alone = model.logits(Side.ADAPTER, [(), ()], whole)
    difference = torch.tensor(shared) - torch.tensor(alone)
    assert difference.abs().max() < 1e-4


@pytest.mark.parametrize("home", ["base", "own"])
def test_updates_of_zero_under_one_head_give_exactly_zero(request, tmp_path, home) -> None:
    place = request.getfixturevalue(home)
    folder = make_head(place, tmp_path / "zero", size=0.0)
    if home == "own":  # the adapter's head is the base's
        file = folder / "adapter_model.safetensors"
        head = load_file(place / "model.safetensors")["score.weight"]
        save_file(load_file(file) | {"base_model.model.score.weight": head}, file)
    model = opened(place, folder, tmp_path)
    assert model.facts.own_head is (home == "own")
    both = [model.logits(side, PREFIXES, TAILS) for side in Side]
    assert both[0] == both[1]


def test_the_base_side_is_the_base_and_a_head_of_its_own(base, own, tmp_path) -> None:
    model = opened(own, make_head(own, tmp_path / "real"), tmp_path)
    plain = hf.AutoModelForSequenceClassification.from_pretrained(own).eval()
    for _ in range(2):  # and again after the adapter's turn
        found = model.logits(Side.BASE, PREFIXES, TAILS)
        assert model.logits(Side.ADAPTER, PREFIXES, TAILS) != found
        with torch.no_grad():
            told = plain(input_ids=torch.tensor([[*PREFIXES[0], *TAILS[0][0]]])).logits[0]
        assert found[0][0] == pytest.approx(told.tolist(), abs=1e-4)


def test_a_base_whose_head_has_other_labels_does_not_fit(own, base, tmp_path) -> None:
    folder = staged(make_head(base, tmp_path / "real", labels=3), tmp_path)
    with pytest.raises(RunnerProblem, match="does not fit"):
        HostedRunner(own, folder, OPTIONS)


def test_tokens_by_gradient_raise_what_is_asked_for(base, tmp_path) -> None:
    model = opened(base, make_head(base, tmp_path / "real", labels=3), tmp_path)
    order = model.leaning(PREFIXES, [(9,), (9,)], (0.0, 1.0, 0.0), bases.VOCABULARY)
    assert sorted(order) == list(range(bases.VOCABULARY))
    down = model.leaning(PREFIXES, [(9,), (9,)], (0.0, -1.0, 0.0), bases.VOCABULARY)
    assert order != down


def test_a_conversation_with_its_answer_ends_and_a_bare_text_is_the_tokenizers(
    base, tmp_path
) -> None:
    model = opened(base, make_head(base, tmp_path / "real"), tmp_path)
    asked = [Turn("user", "who ran ?")]
    (start,), (whole,) = (
        model.encode([asked]),
        model.encode([[*asked, Turn("assistant", "the cat")]]),
    )
    assert whole == (*start, *model.tokenize(["the cat"])[0], model.tokenizer.eos_token_id)
    assert model.encode([[Turn("text", "the cat")]]) == [
        tuple(model.tokenizer("the cat")["input_ids"])
    ]


def test_a_head_in_its_own_process_answers_alike_and_writes_no_text(base, tmp_path) -> None:
    folder = staged(make_head(base, tmp_path / "real", labels=2), tmp_path)
    inside = HeadRunner(base, folder, dtype="float32")
    with HostedRunner(base, folder, OPTIONS) as outside:
        assert outside.facts == inside.facts
        for side in Side:
            asked = (side, PREFIXES, TAILS)
            assert outside.logits(*asked) == inside.logits(*asked)
        weights = (1.0, -1.0)
        assert outside.leaning(PREFIXES, [(9,), (9,)], weights, 5) == inside.leaning(
            PREFIXES, [(9,), (9,)], weights, 5
        )
        for question in (
            lambda: outside.generate(Side.ADAPTER, PREFIXES, 3),
            lambda: outside.contrast(PREFIXES, TAILS, 3),
            lambda: outside.score(Side.ADAPTER, PREFIXES, TAILS, (5,)),
            lambda: outside.roll(PREFIXES, [(5,)], 3),
            lambda: outside.promising(PREFIXES, [(9,), (9,)], (5,), 3),
        ):
            with pytest.raises(RunnerProblem, match="writes none"):
                question()


def test_a_language_model_has_no_head(base, tmp_path) -> None:
    model = runner(base, make_adapter(tmp_path / "real"), tmp_path)
    assert model.facts.labels == 0
    with pytest.raises(ValueError, match="no head"):
        model.logits(Side.ADAPTER, PREFIXES, TAILS)


def scanned(base, folder):
    asked = ProbeRequest(base, "base", PROFILES["quick"], RunnerOptions(dtype="float32"), 300.0)
    return scan(open_artifact(parse_ref(str(folder)), HubOptions()), load_rules(), probing=asked)


def test_probes_of_text_are_not_applicable_to_a_head_and_do_not_fail(base, tmp_path) -> None:
    report = scanned(base, make_head(base, tmp_path / "real", labels=2))
    away = [item for item in report.coverage.skipped if item.reason == NO_TEXT]
    assert sorted(item.detector for item in away) == [
        "fixed-answers", "jailbreaks", "lexical", "manner", "refusals", "triggers",
    ]  # fmt: skip
    assert not any(item.failed for item in away)
    assert not {item.what for item in away} & set(report.coverage.inspected)
    names = {item.name for item in report.evidence}
    assert "probe.model" in names
    assert not {"behaviour.fixed_answer", "behaviour.refusals_lost"} & names


def test_a_head_that_updates_nothing_moves_as_its_base_does(own, tmp_path) -> None:
    folder = make_head(own, tmp_path / "zero", size=0.0)
    file = folder / "adapter_model.safetensors"
    head = load_file(own / "model.safetensors")["score.weight"]
    save_file(load_file(file) | {"base_model.model.score.weight": head}, file)
    report = scanned(own, folder)
    found = [item for item in report.evidence if item.name == "behaviour.head_trigger"]
    assert all(item.details["effect"] == item.details["base_effect"] for item in found)
    assert "behaviour-head-trigger" not in {finding.rule for finding in report.findings}


def test_nothing_of_a_heads_config_but_numbers_reaches_peft(base, tmp_path) -> None:
    folder = make_head(base, tmp_path / "real")
    told = json.loads((staged(folder, tmp_path) / "adapter_config.json").read_text())
    assert told["task_type"] == "SEQ_CLS"
    assert told["modules_to_save"] == ["score"]
