"""Scans with a base at hand: what is measured, what is told of overwrites, what does not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from adapterscan.model import Severity
from adapterscan.rules.judging import load_rules
from adapterscan.scan import ScanOptions, exit_code, scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from adapterscan.sources.base_shards import open_shards
from fixtures import bases
from fixtures.containers import safetensors
from fixtures.folder import as_json, config, honest, save
from fixtures.weights import PREFIX, encode, encode_all, low_rank

NORM = "model.layers.2.input_layernorm.weight"
MODULE = "model.layers.1.self_attn.q_proj"


@pytest.fixture(scope="module")
def book():
    return load_rules()


@pytest.fixture(scope="module")
def state():
    return bases.weights()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return open_shards(bases.write(tmp_path_factory.mktemp("base")), "example-org/tiny-llama")


@pytest.fixture
def scanned(base, book):
    def of(folder, other=None):
        artifact = open_artifact(parse_ref(str(folder)), HubOptions())
        return scan(artifact, book, options=ScanOptions(base=other or base))

    return of


def facts(report, name):
    return [item for item in report.evidence if item.name == name]


def fact(report, name):
    (found,) = facts(report, name)
    return found


def severities(report):
    return {finding.rule: finding.severity for finding in report.findings}


def failed(report):
    return [item for item in report.coverage.skipped if item.failed]


def with_tensors(folder: Path, tensors, **settings) -> Path:
    save(folder, config(**settings), {**encode_all(honest()), **tensors})
    return folder


def test_an_honest_adapter_is_measured_and_nothing_is_found(scanned, adapters):
    report = scanned(adapters / "benign-qv")
    assert len(facts(report, "base.module")) == report.adapters[0].modules == 8
    assert 0 < fact(report, "base.relative").value < 0.1
    assert fact(report, "base.intruders").value == 0
    assert {item.details["format"] for item in facts(report, "base.rounding")} == {
        "bf16", "fp16", "int8", "int4",
    }  # fmt: skip
    assert all(severity <= Severity.INFO for severity in severities(report).values())
    assert report.coverage.complete
    assert "every ΔW against the base's weights" in report.coverage.inspected
    assert report.versions["base"] == "example-org/tiny-llama"
    assert "base model" not in {item.what for item in report.coverage.skipped}


def test_a_report_calls_the_comparison_by_what_it_measures(scanned, adapters):
    detectors = scanned(adapters / "benign-qv").versions["detectors"].split(",")
    names = [text.partition("@")[0] for text in detectors]
    assert "base-deltas" in names
    assert "merge" not in names


def test_values_are_those_of_the_dense_matrices(scanned, adapters, state):
    report = scanned(adapters / "benign-qv")
    found = next(i for i in facts(report, "base.module") if i.subject.name == MODULE)
    tensors = honest()
    a, b = (tensors[f"{PREFIX}{MODULE}.lora_{x}.weight"] for x in "AB")
    weight = state[f"{MODULE}.weight"]
    size = np.linalg.norm(2.0 * b @ a) / np.linalg.norm(weight)
    assert found.value == pytest.approx(size, rel=0.01)
    assert found.details["base_frobenius"] == pytest.approx(np.linalg.norm(weight), rel=0.01)


def test_an_adapter_that_does_nothing_measures_exactly_zero(scanned, adapters):
    report = scanned(adapters / "zero-b")
    assert {item.value for item in facts(report, "base.module")} == {0.0}
    assert fact(report, "base.relative").value == 0.0
    assert fact(report, "base.intruders").value == 0
    assert fact(report, "base.alignment").value == 0.0


def test_a_planted_direction_is_an_intruder_and_its_honest_twin_has_none(scanned, tmp_path):
    a, b = low_rank("alien", 64, 64, 4, 3.0)
    keys = [f"{PREFIX}{MODULE}.lora_{x}.weight" for x in "AB"]
    loud = with_tensors(
        tmp_path / "loud", {keys[0]: encode(a * 50, "F32"), keys[1]: encode(b, "F32")}
    )
    found = fact(scanned(loud), "base.intruders")
    assert found.value >= 1
    assert found.details["worst"] == MODULE
    assert fact(scanned(with_tensors(tmp_path / "twin", {})), "base.intruders").value == 0


@pytest.mark.parametrize("name", ["overwrite-layernorm", "overwrite-no-prefix"])
def test_an_overwrite_is_still_critical_and_says_how_far_it_moves(scanned, adapters, name):
    report = scanned(adapters / name)
    assert severities(report)["base-weight-overwrite"] is Severity.CRITICAL
    moved = fact(report, "overwrite.moved")
    assert moved.details["outcome"] in ("moved", "another shape", "absent")
    (finding,) = (f for f in report.findings if f.rule == "base-weight-overwrite")
    assert f"against the base: {moved.details['outcome']}" in finding.message


def test_how_far_is_the_distance_of_the_values(scanned, tmp_path, state):
    new = state[NORM] * 1.5
    report = scanned(with_tensors(tmp_path / "a", {f"{PREFIX}{NORM}": encode(new, "F32")}))
    moved = fact(report, "overwrite.moved")
    assert moved.value == pytest.approx(0.5, abs=0.01)
    assert moved.details["elements"] == 64
    assert moved.details["base_tensor"] == NORM


def test_a_copy_of_the_bases_own_weight_is_no_overwrite(scanned, tmp_path, state):
    report = scanned(with_tensors(tmp_path / "a", {f"{PREFIX}{NORM}": encode(state[NORM])}))
    assert fact(report, "overwrite.moved").value == 0.0
    assert severities(report)["overwrite-identical"] is Severity.INFO
    assert "base-weight-overwrite" not in severities(report)


def test_one_copy_does_not_excuse_another_overwrite(scanned, tmp_path, state):
    other = "model.layers.3.input_layernorm.weight"
    report = scanned(with_tensors(tmp_path / "a", {
        f"{PREFIX}{NORM}": encode(state[NORM]), f"{PREFIX}{other}": encode(state[other] * 2),
    }))  # fmt: skip
    (finding,) = (f for f in report.findings if f.rule == "base-weight-overwrite")
    assert finding.count == 1
    assert other in finding.message


def test_one_element_that_differs_is_no_copy(scanned, tmp_path, state):
    new = state[NORM].copy()
    new[7] = np.nan
    report = scanned(with_tensors(tmp_path / "a", {f"{PREFIX}{NORM}": encode(new)}))
    assert severities(report)["base-weight-overwrite"] is Severity.CRITICAL
    assert fact(report, "overwrite.moved").details["elements"] == 1


def test_a_tensor_that_the_base_does_not_have_stays_critical(scanned, tmp_path):
    key = f"{PREFIX}model.layers.2.other_norm.weight"
    report = scanned(with_tensors(tmp_path / "a", {key: encode(np.ones(64))}))
    assert fact(report, "overwrite.moved").details["outcome"] == "absent"
    assert severities(report)["base-weight-overwrite"] is Severity.CRITICAL


def test_a_copied_base_layer_of_an_adapted_embedding_is_told_apart(scanned, tmp_path, state):
    a, b = low_rank("embedding", 64, 512, 4, 0.01)
    tensors = {
        f"{PREFIX}model.embed_tokens.lora_embedding_A": encode(a),
        f"{PREFIX}model.embed_tokens.lora_embedding_B": encode(b),
    }
    key = f"{PREFIX}model.embed_tokens.base_layer.weight"
    own = state["model.embed_tokens.weight"]
    targets = {"target_modules": ["q_proj", "v_proj", "embed_tokens"]}
    copied = with_tensors(tmp_path / "a", {**tensors, key: encode(own)}, **targets)
    changed = with_tensors(tmp_path / "b", {**tensors, key: encode(own * 2)}, **targets)
    assert "adapted-embedding-replaced" not in severities(scanned(copied))
    assert "adapted-embedding-replaced" in severities(scanned(changed))


def test_an_adapted_embedding_lies_on_the_rows_of_the_base(scanned, tmp_path, state):
    a, b = low_rank("embedding", 64, 512, 4, 0.01)
    folder = with_tensors(
        tmp_path / "a",
        {f"{PREFIX}model.embed_tokens.lora_embedding_A": encode(a, "F32"),
         f"{PREFIX}model.embed_tokens.lora_embedding_B": encode(b, "F32")},
        target_modules=["q_proj", "v_proj", "embed_tokens"],
    )  # fmt: skip
    found = {i.subject.name: i for i in facts(scanned(folder), "base.module")}
    size = np.linalg.norm(2.0 * b @ a) / np.linalg.norm(state["model.embed_tokens.weight"])
    assert found["model.embed_tokens"].value == pytest.approx(size, rel=0.01)


def test_an_adapter_of_another_base_does_not_fit(scanned, adapters, tmp_path):
    other = {key: np.ones((3, 5)) for key in bases.weights() if "proj" in key}
    wrong = open_shards(bases.write(tmp_path / "wrong", other), "wrong")
    report = scanned(adapters / "benign-qv", wrong)
    assert severities(report)["base-shape-mismatch"] is Severity.MEDIUM
    assert len(facts(report, "base.shape_mismatch")) == 8
    assert not facts(report, "base.relative")
    assert exit_code([report], Severity.HIGH) == 3


def test_a_base_of_another_name_and_the_same_shapes_is_said(scanned, tmp_path):
    report = scanned(with_tensors(tmp_path / "a", {}, base_model_name_or_path="org/tiny-aligned"))
    (finding,) = (f for f in report.findings if f.rule == "base-differs")
    assert finding.severity is Severity.INFO
    assert "names org/tiny-aligned" in finding.message
    assert "compared with example-org/tiny-llama" in finding.message


def test_the_base_that_the_adapter_names_is_not_another(scanned, adapters):
    report = scanned(adapters / "benign-qv")
    assert fact(report, "base.name").value == "same"
    assert "base-differs" not in severities(report)


def test_an_adapter_that_names_no_base_names_no_other(scanned, tmp_path):
    report = scanned(with_tensors(tmp_path / "a", {}, base_model_name_or_path=None))
    assert not facts(report, "base.name")


def test_another_base_is_told_although_there_is_no_update_to_compare(scanned, tmp_path, state):
    folder = tmp_path / "a"
    settings = config(base_model_name_or_path="org/other", modules_to_save=["lm_head"])
    save(folder, settings, {f"{PREFIX}{NORM}": encode(state[NORM])})
    assert fact(scanned(folder), "base.name").value == "other"


def test_one_module_of_another_shape_is_named_and_the_others_are_compared(scanned, tmp_path):
    a, b = low_rank("other", 48, 64, 4, 0.01)
    keys = [f"{PREFIX}{MODULE}.lora_{x}.weight" for x in "AB"]
    report = scanned(with_tensors(tmp_path / "a", {keys[0]: encode(a), keys[1]: encode(b)}))
    found = fact(report, "base.shape_mismatch")
    assert (found.subject.name, found.value) == (MODULE, "48×64")
    assert found.details["base_shape"] == "64×64"
    assert fact(report, "base.relative").details["modules"] == 7


def test_a_resized_vocabulary_is_not_called_another_base(scanned, tmp_path):
    a, b = low_rank("embedding", 64, 520, 4, 0.01)
    folder = with_tensors(
        tmp_path / "a",
        {f"{PREFIX}model.embed_tokens.lora_embedding_A": encode(a),
         f"{PREFIX}model.embed_tokens.lora_embedding_B": encode(b)},
        target_modules=["q_proj", "v_proj", "embed_tokens"],
    )  # fmt: skip
    report = scanned(folder)
    assert fact(report, "base.shape_mismatch").details["axis"] == "vocabulary"
    assert "base-shape-mismatch" not in severities(report)
    assert failed(report)


def test_layers_that_the_base_does_not_have_make_the_scan_incomplete(scanned, adapters):
    report = scanned(adapters / "benign-deep-qv")  # 24 layers, the base has four
    (skipped,) = failed(report)
    assert "40 of 48 updates were not compared" in skipped.reason
    assert "has no weight in the base by that name" in skipped.reason
    assert fact(report, "base.relative").details["modules"] == 8


def test_dora_gets_its_true_delta(scanned, tmp_path, state):
    tensors, modules = honest(), ("q_proj", "v_proj")
    magnitudes = {}
    for layer in range(4):
        for name in modules:
            module = f"model.layers.{layer}.self_attn.{name}"
            norms = np.linalg.norm(state[f"{module}.weight"], axis=1)
            magnitudes[f"{PREFIX}{module}.lora_magnitude_vector"] = 2.0 * norms
    folder = tmp_path / "dora"
    save(folder, config(use_dora=True), encode_all({**tensors, **magnitudes}, "F32"))
    report = scanned(folder)
    found = fact(report, "base.dora")
    assert found.details["modules"] == 8
    assert fact(report, "base.relative").value == pytest.approx(1.0, abs=0.02)  # twice the base
    assert found.value > 100 * found.details["factors"]
    assert not [s for s in report.coverage.skipped if "DoRA" in s.reason]


def test_a_square_weight_is_transposed_where_the_config_says_so(base, book, tmp_path):
    folder = tmp_path / "conv1d"
    shutil.copytree(Path(__file__).parents[2] / "fixtures/adapters/benign-qv", folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_bytes(as_json({**settings, "fan_in_fan_out": True}))
    turned = {key: value.T for key, value in bases.weights().items()}
    other = open_shards(bases.write(tmp_path / "base", turned), "turned")

    def sizes(folder, base):
        artifact = open_artifact(parse_ref(str(folder)), HubOptions())
        report = scan(artifact, book, options=ScanOptions(base=base))
        return [(i.value, i.details["left"]) for i in facts(report, "base.module")]

    plain = sizes(Path(__file__).parents[2] / "fixtures/adapters/benign-qv", base)
    assert np.array(sizes(folder, other)) == pytest.approx(np.array(plain), rel=1e-3)


def test_a_base_that_breaks_keeps_what_was_found_before(scanned, tmp_path, state, adapters):
    folder = bases.write(tmp_path / "base")
    broken = open_shards(folder, "broken")
    (folder / "model.safetensors").write_bytes(safetensors({"a": encode(np.ones(4))}))
    report = scanned(adapters / "overwrite-layernorm", broken)
    assert severities(report)["base-weight-overwrite"] is Severity.CRITICAL
    (finding,) = (f for f in report.findings if f.rule == "base-weight-overwrite")
    assert "against the base: not compared" in finding.message
    assert not report.coverage.complete


def test_without_a_base_the_report_says_that_nothing_was_compared(book, adapters):
    report = scan(open_artifact(parse_ref(str(adapters / "benign-qv")), HubOptions()), book)
    assert "base model" in {item.what for item in report.coverage.skipped}
    assert not any("against the base" in text for text in report.coverage.inspected)
    assert not facts(report, "base.relative")


def test_modules_that_end_alike_do_not_multiply_the_work(scanned, tmp_path):
    a, b = low_rank("many", 64, 64, 4, 0.01)
    tensors = {}
    for number in range(9):
        for part, values in (("A", a), ("B", b)):
            tensors[f"{PREFIX}x{number}.{MODULE}.lora_{part}.weight"] = encode(values)
    report = scanned(with_tensors(tmp_path / "a", tensors))
    assert any("too many other modules" in item.reason for item in failed(report))
    same = [i for i in facts(report, "base.module") if i.subject.name.endswith(MODULE)]
    assert len(same) == 4


def test_a_base_that_ends_early_still_tells_what_was_compared(scanned, tmp_path, adapters):
    folder = bases.write(tmp_path / "base", shards=39)  # a file for each tensor
    base = open_shards(folder, "base")
    index = json.loads((folder / bases.INDEX).read_text())["weight_map"]
    (folder / index["model.layers.3.self_attn.v_proj.weight"]).unlink()
    report = scanned(adapters / "benign-qv", base)
    assert 1 <= fact(report, "base.relative").details["modules"] < 8
    assert failed(report)


def test_nan_factors_are_said_and_not_measured(scanned, adapters):
    report = scanned(adapters / "nan-weights")
    assert failed(report)
    assert all(np.isfinite(item.value) for item in facts(report, "base.module"))


def test_why_a_base_was_not_compared_is_said(book, adapters):
    artifact = open_artifact(parse_ref(str(adapters / "benign-qv")), HubOptions())
    report = scan(artifact, book, options=ScanOptions(no_base="b.gguf: holds bloom"))
    (said,) = (item for item in report.coverage.skipped if item.what == "base model")
    assert "b.gguf: holds bloom" in said.reason
    assert not said.failed
