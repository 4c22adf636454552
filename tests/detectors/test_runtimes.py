"""How runtimes' scales are compared, over fixtures and edits of a trained adapter."""

import pytest

from adapterscan.rules.judging import load_rules
from adapterscan.scan import scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from tests.conftest import ADAPTERS
from tests.planted import TRAINED, Edited


def report(folder):
    return scan(open_artifact(parse_ref(str(folder)), HubOptions()), load_rules())


def runtime_rules(found):
    return {item.rule for item in found.findings if item.rule.startswith("runtime-")}


@pytest.fixture
def edited():
    return Edited(next(path.parent for path in sorted(TRAINED.rglob("adapter_model.safetensors"))))


def test_an_ordinary_adapter_has_a_line_for_each_runtime_and_no_finding(edited, tmp_path):
    found = report(edited.write(tmp_path / "adapter"))
    lines = [item for item in found.evidence if item.name == "adapter.runtime"]
    assert len(lines) == 6
    assert {item.details["class"] for item in lines} == {"same"}
    assert not runtime_rules(found)


def test_one_sentence_says_who_applies_what():
    (finding,) = [
        item
        for item in report(ADAPTERS / "alpha-zero").findings
        if item.rule == "runtime-live-elsewhere"
    ]
    assert finding.message == (
        "Same bytes, different model: PEFT applies s = 0 (α = 0); "
        "llama.cpp s = 1 (α = 0 reads as unset)."
    )


def test_an_adapter_of_zeros_does_nothing_anywhere(edited, tmp_path):
    edited.config["lora_alpha"] = 0
    edited.tensors = {name: 0 * tensor for name, tensor in edited.tensors.items()}
    assert not runtime_rules(report(edited.write(tmp_path / "adapter")))


def test_rslora_is_of_low_severity_whatever_its_rank(edited, tmp_path):
    edited.config["use_rslora"] = True
    found = report(edited.write(tmp_path / "adapter"))
    assert runtime_rules(found) == {"runtime-scale-differs"}


def test_modules_that_are_zero_do_not_make_a_runtime_differ(edited, tmp_path):
    edited.config["alpha_pattern"] = {edited.one.removeprefix("base_model.model."): 0}
    edited.tensors[f"{edited.one}.lora_B.weight"] *= 0
    assert not runtime_rules(report(edited.write(tmp_path / "adapter")))


def test_one_module_that_is_muted_in_peft_is_named(edited, tmp_path):
    edited.config["alpha_pattern"] = {edited.one.removeprefix("base_model.model."): 0}
    found = report(edited.write(tmp_path / "adapter"))
    (module,) = [item for item in found.evidence if item.name == "delta.scale_disagrees"]
    assert module.subject.name == edited.one.removeprefix("base_model.model.")
    assert module.details["peft"] == 0.0
    assert "runtime-more-elsewhere" in runtime_rules(found)
