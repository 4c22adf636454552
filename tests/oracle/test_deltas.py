"""Every ΔW of every LoRA variant against PEFT's merge; what PEFT itself saved raises no alarm."""

import peft
import pytest

from adapterscan.formats.accounting import Role
from adapterscan.probes.staging import stage
from adapterscan.reading import read
from adapterscan.scan import ScanOptions, scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from adapterscan.sources.base_shards import open_shards
from tests.oracle.bases import base
from tests.oracle.measure import error, fill, load, look, make, our_deltas, pin, rulebook, save
from tests.oracle.test_onbase import saved
from tests.oracle.variants import OTHERS, QV, REPLACING, VARIANTS

TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda variant: variant.name)
def case(request, tmp_path_factory):
    """Return the variant, what PEFT made of it, and what we read."""
    made = make(request.param, tmp_path_factory.mktemp("oracle") / "adapter")
    return request.param, made, look(made.folder)


def test_every_delta_equals_what_peft_merges(case):
    _, made, ours = case
    assert ours.deltas.keys() == made.deltas.keys()
    errors = {name: error(ours.deltas[name], delta) for name, delta in made.deltas.items()}
    assert not {name: found for name, found in errors.items() if found > TOLERANCE}


def test_no_tensor_that_peft_saved_is_an_overwrite_or_unmatched(case):
    variant, _, ours = case
    roles = {item.role for item in ours.adapter.accounted}
    allowed = {Role.ADAPTER, Role.DECLARED}
    if "embedding-replaced-undeclared" in variant.expected:
        allowed |= {Role.EMBEDDING}
    assert roles <= allowed


def test_no_module_that_peft_adapted_is_called_untargeted(case):
    assert not case[2].adapter.untargeted


def test_nothing_of_medium_severity_is_found_in_an_honest_adapter(case):
    variant, _, ours = case
    assert ours.rules == set(variant.expected)


def test_the_coverage_says_what_was_not_read(case):
    variant, _, ours = case
    said = " ".join(item.reason for item in ours.report.coverage.skipped)
    assert ours.report.coverage.complete is variant.complete
    assert variant.partial in said


@pytest.mark.parametrize(("kind", "options"), OTHERS, ids=lambda value: str(value)[:20])
def test_other_tuners_are_reported_as_not_analysed(kind, options, tmp_path):
    save(base("llama"), getattr(peft, kind)(**options), tmp_path / "adapter")
    ours = look(tmp_path / "adapter")
    assert {item.role for item in ours.adapter.accounted} == {Role.ADAPTER}
    assert not ours.rules
    assert not ours.report.coverage.complete


@pytest.mark.parametrize(("kind", "options"), REPLACING, ids=lambda value: str(value)[:20])
def test_what_is_replaced_whole_is_compared_with_the_base(kind, options, tmp_path):
    save(base("llama"), getattr(peft, kind)(**options), tmp_path / "adapter")
    weights = open_shards(saved("llama", tmp_path / "base"), "base")
    artifact = open_artifact(parse_ref(str(tmp_path / "adapter")), HubOptions())
    assert not scan(artifact, rulebook()).coverage.complete
    report = scan(artifact, rulebook(), options=ScanOptions(base=weights))
    names = {"LNTuningConfig": "overwrite.moved", "TrainableTokensConfig": "token.moved"}
    assert len([item for item in report.evidence if item.name == names[kind]]) == 2
    assert report.coverage.complete


def test_several_adapters_in_one_repository_are_read_each_by_its_own_config(tmp_path):
    wrapped = peft.get_peft_model(base("llama"), peft.LoraConfig(r=4, target_modules=list(QV)))
    wrapped.add_adapter("other", peft.LoraConfig(r=2, lora_alpha=5, target_modules=["k_proj"]))
    fill(wrapped)
    wrapped.save_pretrained(tmp_path)
    pin(tmp_path)
    contents = read(open_artifact(parse_ref(str(tmp_path)), HubOptions()), workers=1)
    scales = {item.adapter.folder: item.adapter.deltas[0].scaling for item in contents.adapters}
    assert scales == {"": 2.0, "other": 2.5}
    other = next(item.adapter for item in contents.adapters if item.adapter.folder == "other")
    name, layer = "model.layers.1.self_attn.k_proj", wrapped.base_model.model.model.layers[1]
    theirs = layer.self_attn.k_proj.get_delta_weight("other").detach().double().numpy()
    assert error(our_deltas(tmp_path, other)[name], theirs) < TOLERANCE


@pytest.mark.parametrize(
    "variant", [v for v in VARIANTS if v.name.startswith("AdaLoRA")], ids=lambda v: v.name
)
def test_adalora_as_it_is_staged_is_loaded_as_the_same_updates(variant, tmp_path):
    made = make(variant, tmp_path / "adapter")
    contents = read(open_artifact(parse_ref(str(made.folder)), HubOptions()), workers=1)
    staged = tmp_path / "staged"
    staged.mkdir()
    stage(contents, contents.adapters[0].adapter, staged)
    plain = load(base(variant.base), staged)
    assert plain.deltas.keys() == made.deltas.keys()
    for name, delta in made.deltas.items():
        assert error(plain.deltas[name], delta) < TOLERANCE
