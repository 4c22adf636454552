"""What a config makes a loader open, and how much it asks for."""

import pytest

from adapterscan.rules.judging import load_rules
from adapterscan.scan import scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from fixtures.folder import config, save


def facts(folder, name, **changes):
    save(folder, config(**changes))
    report = scan(open_artifact(parse_ref(str(folder)), HubOptions()), load_rules())
    return {item.subject.name: item for item in report.evidence if item.name == name}


MPT = {"peft_type": "MULTITASK_PROMPT_TUNING"}
REACHED = [
    ("prompt_tuning_init_state_dict_path", "unpickle", "outside",
     {**MPT, "prompt_tuning_init_state_dict_path": "/srv/x.bin"}),
    ("corda_config.cache_file", "unpickle", "shipped",
     {"corda_config": {"cache_file": "README.md"}}),
    ("adapters[0]", "fetch", "outside", {"peft_type": "XLORA", "adapters": {"0": "a/../../x"}}),
    ("adapters[1]", "fetch", "hub", {"peft_type": "XLORA", "adapters": ["a", "org/other"]}),
    ("adapters[0]", "fetch", "address", {"peft_type": "XLORA", "adapters": {"0": "http://x/y"}}),
    ("shadow_model", "fetch", "hub", {"peft_type": "SHADOW", "shadow_model": "org/model"}),
    ("tokenizer_kwargs.subfolder", "options", "outside",
     {"peft_type": "PROMPT_TUNING", "tokenizer_kwargs": {"subfolder": "..\\x"}}),
]  # fmt: skip


@pytest.mark.parametrize(("field", "reaches", "target", "changes"), REACHED, ids=lambda v: str(v))
def test_a_field_that_reaches_a_loader_is_named(tmp_path, field, reaches, target, changes):
    found = facts(tmp_path, "config.external_reference", **changes)[field]
    assert (found.details["reaches"], found.details["target"]) == (reaches, target)
    assert not facts(tmp_path, "config.path", **changes)


@pytest.mark.parametrize(
    "changes",
    [{}, {"peft_type": "SHADOW", "shadow_model": "mirror"}, {"corda_config": {"verbose": True}},
     {"adapters": {"0": "not an X-LoRA"}}],
    ids=str,
)  # fmt: skip
def test_defaults_reach_nothing(tmp_path, changes):
    assert not facts(tmp_path, "config.external_reference", **changes)


PATHS = {
    "resume.state": {"resume": {"state": "checkpoint/state.pt"}},
    "a.b": {"a": [{"b": "C:\\Users\\me\\run"}]},
    "tags": {"tags": ["ok", "s3://bucket/x"]},
    "init_lora_weights": {"init_lora_weights": "../w"},
}


@pytest.mark.parametrize(("field", "changes"), PATHS.items(), ids=str)
def test_a_path_in_any_other_field_is_told(tmp_path, field, changes):
    assert list(facts(tmp_path, "config.path", **changes)) == [field]


@pytest.mark.parametrize(
    "changes",
    [{"target_modules": r".*\.q_proj/"}, {"rank_pattern": {"a/../b": 4}}, {"note": "and/or"},
     {"base_model_name_or_path": "../base"}, {"note": ""}, {"note": "/"}],
    ids=str,
)  # fmt: skip
def test_names_patterns_and_words_are_no_paths(tmp_path, changes):
    assert not facts(tmp_path, "config.path", **changes)


@pytest.mark.parametrize(
    ("changes", "factor"),
    [({"init_lora_weights": "pissa_niter_6400"}, 100), ({"num_virtual_tokens": 10**9}, 10**4),
     ({"monteclora_config": {"num_samples": 10**400}}, 1e295)],
    ids=str,
)  # fmt: skip
def test_a_number_that_no_config_has_is_measured(tmp_path, changes, factor):
    (found,) = facts(tmp_path, "config.huge_number", **changes).values()
    assert found.details["factor"] == pytest.approx(factor)


@pytest.mark.parametrize(
    "changes",
    [{"random_loc_seed": 2**40}, {"init_lora_weights": "pissa_niter_16"}, {"x": float("nan")},
     {"trainable_token_indices": [128255]}, {"megatron_config": {"hidden_size": 16384}}],
    ids=str,
)  # fmt: skip
def test_seeds_ids_and_usual_sizes_are_left_alone(tmp_path, changes):
    assert not facts(tmp_path, "config.huge_number", **changes)


@pytest.mark.parametrize(
    ("entry", "whole"), [("", True), ("layers", True), ("s", True), ("proj", False)]
)
def test_an_entry_that_names_much_is_measured(tmp_path, entry, whole):
    found = facts(tmp_path, "config.saves_broadly", modules_to_save=[entry])
    assert found[f"modules_to_save[{entry}]"].details["whole"] is whole


def test_a_head_and_embeddings_are_not_much(tmp_path):
    plain = ["lm_head", "embed_tokens", "score", "classifier"]
    assert not facts(tmp_path, "config.saves_broadly", modules_to_save=plain)
