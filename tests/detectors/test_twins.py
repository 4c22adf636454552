"""Indexes of shards, several weight files in one folder, value heads, nested adapters."""

import json

import numpy as np
import pytest

from adapterscan.formats.picking import picks, takers
from adapterscan.rules.judging import load_rules
from adapterscan.scan import scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from fixtures.containers import Tensor, safetensors
from fixtures.folder import BIN, WEIGHTS, config, honest, honest_tensors, put, save
from fixtures.pickles import state_dict
from fixtures.weights import encode_all


def report(folder):
    return scan(open_artifact(parse_ref(str(folder)), HubOptions()), load_rules())


def facts(folder, name):
    return [item for item in report(folder).evidence if item.name == name]


def index(folder, shards, name=f"{WEIGHTS}.index.json", more=None):
    save(
        folder, config(), None, {name: json.dumps({"weight_map": shards}).encode(), **(more or {})}
    )
    return {str(item.subject.name): item.value for item in facts(folder, "index.entry")}


@pytest.mark.parametrize(
    ("shard", "kind"),
    [("../x.safetensors", "outside"), ("a/../../x.safetensors", "outside"), ("/x", "outside"),
     ("..\\x.safetensors", "outside"), ("C:x.safetensors", "outside"), ("~/x", "outside"),
     ("https://x.example/y.safetensors", "outside"), ("x.bin", "another format"),
     ("x.safetensors", "missing"), ("", "another format")],
)  # fmt: skip
def test_an_entry_of_an_index_is_judged(tmp_path, shard, kind):
    assert index(tmp_path, {"a": shard}) == {shard: kind}


def test_an_index_of_what_is_there_is_silent(tmp_path):
    assert index(tmp_path, {"a": WEIGHTS, "b": WEIGHTS}) == {}


def test_an_index_of_pickles_that_names_a_text_is_told(tmp_path):
    found = index(tmp_path, {"a": "x.txt"}, "pytorch_model.bin.index.json", {"x.txt": b"x"})
    assert found == {"x.txt": "another format"}


def test_what_is_wrong_with_an_index_is_kept(tmp_path):
    raw = b'{"weight_map": {"a": "x.safetensors", "a": "%s", "b": 3}}' % WEIGHTS.encode()
    more = {"m.safetensors.index.json": raw, "m-00002-of-00002.safetensors": b""}
    save(tmp_path, config(), None, more)
    assert [item.value for item in facts(tmp_path, "index.duplicate_tensor")] == ["a"]
    assert [item.value for item in facts(tmp_path, "index.entry")] == ["no text"]
    assert [item.subject.file for item in facts(tmp_path, "index.unlisted")] == [
        "m-00002-of-00002.safetensors"
    ]


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"weight_map": []}', b"\x80\x04."])
def test_a_broken_index_is_never_a_pass(tmp_path, data):
    save(tmp_path, config(), None, {"model.safetensors.index.json": data})
    assert not report(tmp_path).coverage.complete


def twin(folder, tensors, name="adapter_model-2.safetensors"):
    save(folder, config(), None, {name: safetensors(tensors)})
    return facts(folder, "adapter.weights_disagree")


def test_a_single_element_of_a_twin_is_seen(tmp_path):
    tensors = honest_tensors()
    name, tensor = next(iter(tensors.items()))
    data = bytearray(tensor.data)
    data[0] ^= 1  # the last bit of the first value: no norm shows it
    (found,) = twin(tmp_path, {**tensors, name: Tensor(tensor.dtype, tensor.shape, bytes(data))})
    assert (found.value, found.details["tensors"], found.details["worst"]) == ("values", 1, name)
    assert found.details["share"] == 1 / sum(np.prod(t.shape) for t in tensors.values())


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_a_copy_of_another_dtype_agrees(tmp_path, dtype):
    assert twin(tmp_path, encode_all(honest(), dtype)) == []


def test_a_gauge_that_keeps_all_norms_is_seen(tmp_path):
    state = {name: -value if "lora_B" in name else value for name, value in honest().items()}
    (found,) = twin(tmp_path, encode_all(state))
    assert found.details["tensors"] == 8


def test_tensors_of_one_file_only_are_counted(tmp_path):
    extra = {**honest_tensors(), "x": Tensor("F32", (1,), bytes(4))}
    (found,) = twin(tmp_path, extra)
    assert found.value == "names or shapes of tensors"
    assert (found.details["tensors"], found.details["of"]) == (1, 17)


def test_a_pickled_twin_is_compared_as_well(tmp_path):
    state = {name: 1.5 * value for name, value in honest().items()}
    put(tmp_path, {BIN: state_dict(encode_all(state))})
    save(tmp_path)
    (found,) = facts(tmp_path, "adapter.weights_disagree")
    assert found.details["tensors"] == 16
    assert found.details["taken_first_by"] == "no loader that we know"
    assert "PEFT" in found.details["taken_second_by"]


def test_a_twin_that_is_cut_short_leaves_its_names(tmp_path):
    save(
        tmp_path,
        config(),
        None,
        {"adapter_model-2.safetensors": safetensors(honest_tensors())[:-8]},
    )
    assert facts(tmp_path, "adapter.weights_disagree")
    assert not report(tmp_path).coverage.complete


def test_loaders_pick_by_name():
    folder = ["adapter_model.bin", "adapter_model.safetensors", "extra.safetensors"]
    chosen = picks(folder)
    assert chosen["PEFT"] == chosen["vLLM"] == ("adapter_model.safetensors",)
    assert chosen["SGLang"] == ("adapter_model.safetensors", "extra.safetensors")
    assert picks(["x-lora.safetensors", "optimizer.safetensors"])["diffusers"] == (
        "x-lora.safetensors",
    )
    assert picks(["adapter_model.pt", "optimizer.pt"])["SGLang"] == ("adapter_model.pt",)
    assert takers("adapter_model.bin", folder) == "no loader that we know"


def test_a_value_head_is_no_base_weight(tmp_path):
    head = {"v_head.summary.weight": Tensor("F32", (1, 64), bytes(256))}
    save(tmp_path, config(), None, {"value_head.safetensors": safetensors(head)})
    assert [item.value for item in facts(tmp_path, "file.value_head")] == ["safetensors"]
    assert facts(tmp_path, "tensor.overwrite") == facts(tmp_path, "adapter.weights_disagree") == []
    assert report(tmp_path).coverage.complete


def test_a_base_weight_called_a_value_head_is_not_passed_over(tmp_path):
    head = {"base_model.model.model.norm.weight": Tensor("F32", (64,), bytes(256))}
    save(tmp_path, config(), None, {"value_head.safetensors": safetensors(head)})
    assert not report(tmp_path).coverage.complete


@pytest.mark.parametrize(("scale", "value"), [(1.0, "the same bytes"), (2.0, "other values")])
def test_an_adapter_below_another_is_told(tmp_path, scale, value):
    save(tmp_path)
    below = {name: scale * values for name, values in honest().items()}
    save(tmp_path / "checkpoint-5" / "x", config(), encode_all(below))
    (found,) = facts(tmp_path, "adapter.nested")
    assert (found.subject.file, found.value) == ("checkpoint-5/x", value)
