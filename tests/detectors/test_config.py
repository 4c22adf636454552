"""Patterns and scales of a config, as a loader would use them."""

import pytest

from adapterscan.formats import patterns
from adapterscan.rules.judging import load_rules
from adapterscan.scan import scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from fixtures.folder import CONFIG, as_json, config, honest_tensors, put, save


def evidence(folder, name):
    report = scan(open_artifact(parse_ref(str(folder)), HubOptions()), load_rules())
    return [item for item in report.evidence if item.name == name]


def hanging(folder):
    return [item.subject.name for item in evidence(folder, "config.pattern_timeout")]


BOMBS = [
    ("layers_pattern", {"layers_pattern": ["layers", "(l+)+$"]}),
    ("layers_pattern", {"layers_pattern": "(l+)+$"}),
    ("modules_to_save", {"modules_to_save": ["(.*)*x"]}),
    ("feedforward_modules", {"peft_type": "IA3", "feedforward_modules": "(a+)+$"}),
    ("block_size_pattern[(a+)+$]", {"peft_type": "C3A", "block_size_pattern": {"(a+)+$": 8}}),
    ("rank_pattern[(a+)+$]", {"peft_type": "ADALORA", "rank_pattern": {"(a+)+$": [True]}}),
]


@pytest.mark.parametrize(("field", "changes"), BOMBS, ids=lambda value: str(value)[:40])
def test_a_pattern_that_hangs_is_found_wherever_peft_reads_one(tmp_path, field, changes):
    save(tmp_path, config(**changes), honest_tensors())
    assert hanging(tmp_path) == [field]


def test_patterns_are_tried_without_a_weight_file(tmp_path):
    put(tmp_path, {CONFIG: as_json(config(target_modules="(a+)+$"))})
    assert hanging(tmp_path) == ["target_modules"]


def test_plain_names_need_no_child(tmp_path, monkeypatch):
    def forbidden(*arguments):
        raise AssertionError(arguments)

    monkeypatch.setattr(patterns, "_run_child", forbidden)
    plain = {"modules_to_save": ["lm_head", "score"], "layers_pattern": ["layers"],
             "rank_pattern": {r"layers\.0\.q_proj": 8}}  # fmt: skip
    save(tmp_path, config(**plain), honest_tensors())
    assert hanging(tmp_path) == []


def scales(folder):
    return sorted((item.subject.kind, item.value) for item in evidence(folder, "config.scaling"))


def test_a_rank_pattern_that_boosts_is_judged_by_the_true_scale(tmp_path):
    rank = 4  # of the honest factors
    hidden = config(r=4096, lora_alpha=4096 * 900, rank_pattern={".*": rank})
    save(tmp_path, hidden, honest_tensors())
    assert scales(tmp_path) == [("field", 900.0), ("module", 4096 * 900 / rank)]


def test_the_largest_and_the_smallest_true_scale_are_both_told(tmp_path):
    uneven = config(r=64, lora_alpha=64, alpha_pattern={"q_proj": 640})  # 1 and 10 by the fields
    save(tmp_path, uneven, honest_tensors())
    assert scales(tmp_path) == [
        ("field", 1.0), ("field", 10.0), ("module", 16.0), ("module", 160.0)
    ]  # fmt: skip


def test_a_scale_that_a_field_says_is_told_once(tmp_path):
    save(tmp_path, config(), honest_tensors())
    assert [kind for kind, _ in scales(tmp_path)] == ["field"]
