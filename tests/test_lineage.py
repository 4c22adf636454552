"""How adapters are related, by weights and by fingerprints: each relation where it holds."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapterscan.errors import BadFingerprint
from adapterscan.lowrank import LowRank
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from adapterscan.together.fingerprint import likeness, module_print, read_fingerprints
from adapterscan.together.fingerprint import written as fingerprints_written
from adapterscan.together.lineage import by_prints, by_weights, fingerprint, parts_of
from adapterscan.together.side_by_side import Part, from_layers
from tests.planted import TRAINED, Edited
from tests.small_adapters import (
    MODULES,
    layer,
    made,
    mapped,
    padded,
    refactored,
    scaled,
    written,
)  # fmt: skip
from tests.test_rule_fixtures import REAL

needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="needs shared/data/adapters")


def never(skipped):
    raise AssertionError(skipped)


def part(folder):
    (found,) = parts_of(folder.name, open_artifact(parse_ref(str(folder)), HubOptions()))
    assert isinstance(found, Part), found
    return found


def related(first, other):
    """Return the relation by weights and that by fingerprints that went through a file."""
    parts = part(first), part(other)
    prints = tuple(fingerprint(item, never) for item in parts)
    path = first.parent / "prints.json"
    path.write_text("".join(fingerprints_written(prints)))
    return by_weights(parts, never), by_prints(*read_fingerprints(path))


@pytest.fixture
def original(tmp_path):
    return written(tmp_path / "original", made(0))


def again(tmp_path, pairs=None, **options):
    return written(tmp_path / "again", pairs or made(0), **options)


SAME = {
    "refactored": lambda path: again(path, refactored(made(0))),
    "padded": lambda path: again(path, padded(made(0), 9)),
    "half precision": lambda path: again(path, dtype=np.float16),
    "alpha and B rescaled": lambda path: again(path, scaled(made(0), 1 / 8), lora_alpha=32),
    "rank-stabilised": lambda path: again(path, scaled(made(0), 0.5), use_rslora=True),
    "no prefix": lambda path: again(path, prefix=""),
    "another model around it": lambda path: again(
        path, {name.replace("model.", "model.language_model."): v for name, v in made(0).items()}
    ),
    "everything": lambda path: again(
        path, padded(refactored(scaled(made(0), 0.25)), 16), dtype=np.float16, lora_alpha=64
    ),
}


@pytest.mark.parametrize("how", SAME)
def test_the_same_updates_are_known_in_other_bytes(original, tmp_path, how):
    for relation in related(original, SAME[how](tmp_path)):
        assert str(relation) == "the same updates"
        assert relation.parallel == len(MODULES)


def test_the_same_updates_in_bfloat16_are_known(original, tmp_path):
    import ml_dtypes

    pairs = mapped(made(0), lambda _, a, b: tuple(
        side.astype(ml_dtypes.bfloat16).astype(np.float32) for side in (a, b)
    ))  # fmt: skip
    for relation in related(original, again(tmp_path, pairs)):
        assert relation.kind == "copy"


@pytest.mark.parametrize("factor", [3.0, 0.5, -1.0])
def test_a_scaled_copy_is_known_with_its_factor(original, tmp_path, factor):
    for relation in related(original, again(tmp_path, scaled(made(0), factor))):
        assert relation.kind == "scaled copy"
        assert relation.factor == pytest.approx(factor, rel=2e-3)
        assert str(relation) == f"the same updates, times {factor:.3g}"


@pytest.mark.parametrize("size", [2.0, 0.1])
def test_a_copy_with_three_modules_changed_names_them(original, tmp_path, size):
    changed, other = MODULES[2:5], made(5)
    pairs = padded(refactored(made(0)), 8) | {
        name: (
            np.vstack([made(0)[name][0], other[name][0]]),
            np.hstack([made(0)[name][1], size * other[name][1]]),
        )
        for name in changed
    }
    for relation in related(original, again(tmp_path, pairs)):
        assert str(relation) == "the same updates, 3 modules changed"
        assert relation.changed == tuple(map(from_layers, changed))


def test_modules_that_were_added_or_left_out_count_as_changed(original, tmp_path):
    pairs = dict(list(made(0).items())[:-2])
    for relation in related(original, again(tmp_path, pairs)):
        assert str(relation) == "the same updates, 2 modules changed"


def test_modules_with_factors_of_their_own_are_told_as_such(original, tmp_path):
    pairs = scaled(made(0), lambda name: 1.5 if layer(name) % 2 else -0.5)
    for relation in related(original, again(tmp_path, pairs)):
        assert relation.kind == "modules rescaled"


def test_what_was_trained_from_one_start_is_told_from_what_was_not(original, tmp_path):
    started = again(tmp_path, made(7, inputs=made(0)))
    exact, sketch = related(original, started)
    assert exact.kind == "one initialisation"
    assert exact.shared_inputs == pytest.approx(1.0, abs=1e-5)
    assert sketch.kind == "unrelated"  # a fingerprint does not keep the inputs
    exact, sketch = related(original, written(tmp_path / "apart", made(8)))
    assert (exact.kind, sketch.kind) == ("unrelated", "unrelated")
    assert exact.shared_inputs == pytest.approx(exact.chance, abs=0.08)


def test_what_was_trained_further_is_of_one_training(original, tmp_path):
    more = made(9)
    pairs = mapped(made(0), lambda n, a, b: (
        np.vstack([a, more[n][0]]), np.hstack([b, 0.5 * more[n][1]]),
    ))  # fmt: skip
    for relation in related(original, again(tmp_path, pairs)):
        assert relation.kind == "one training"


def test_adapters_without_a_common_module_have_no_relation(original, tmp_path):
    pairs = {name.replace("q_proj", "k_proj"): v for name, v in made(0).items() if "q_" in name}
    for relation in related(original, again(tmp_path, pairs)):
        assert relation.kind == "nothing in common"


def test_a_module_of_another_shape_is_one_that_changed(original, tmp_path):
    pairs = made(0)
    a, b = pairs[MODULES[0]]
    pairs[MODULES[0]] = (np.hstack([a, a]), b)
    for relation in related(original, again(tmp_path, pairs)):
        assert relation.changed == (from_layers(MODULES[0]),)


def test_a_module_that_cannot_be_read_is_told_with_both_adapters(original, tmp_path):
    pairs = made(0)
    pairs[MODULES[2]] = (pairs[MODULES[2]][0] * np.nan, pairs[MODULES[2]][1])
    artifact = open_artifact(parse_ref(str(again(tmp_path, pairs))), HubOptions())
    broken, _ = parts_of("again", artifact)
    told = []
    by_weights((part(original), broken), told.append)
    assert [item.what for item in told] == [f"original and again: {from_layers(MODULES[2])}"]


def test_a_trained_adapter_is_known_refactored_and_resharded(tmp_path):
    edited = Edited(TRAINED / "semantic-backdoor")
    edited.refactor()
    edited.tensors = dict(reversed(edited.tensors.items()))
    for relation in related(edited.write(tmp_path / "copy"), TRAINED / "semantic-backdoor"):
        assert relation.kind == "copy"


@pytest.mark.parametrize(
    ("first", "other", "kind"),
    [
        ("benign", "token-backdoor", "one initialisation"),
        ("benign", "semantic-backdoor", "unrelated"),
        ("refusal-suppressed", "token-backdoor", "unrelated"),
        ("colluding-one", "colluding-other", "modules rescaled"),
        ("colluding-one", "token-backdoor", "modules rescaled"),
    ],
)
def test_trained_adapters_are_related_as_they_were_made(first, other, kind):
    assert by_weights((part(TRAINED / first), part(TRAINED / other)), never).kind == kind


@needs_real
def test_checkpoints_of_one_run_are_of_one_training():
    folder = REAL / "paulohenriquecrs+RoBERTa_SEQ_CLS_LoRA_Portuguese" / "results"
    pair = part(folder / "checkpoint-1000"), part(folder / "checkpoint-1500")
    assert by_weights(pair, never).kind == "one training"
    assert by_prints(*(fingerprint(item, never) for item in pair)).kind == "one training"


def test_sketched_cosines_are_unbiased_and_within_their_error(tmp_path):
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(200):
        first = LowRank(rng.standard_normal((3, 40)), rng.standard_normal((30, 3)))
        second = LowRank(rng.standard_normal((3, 40)), rng.standard_normal((30, 3)))
        mixed = LowRank(np.vstack([first.a, second.a]), np.hstack([0.5 * first.b, second.b]))
        one, two = first.dense(), mixed.dense()
        exact = np.sum(one * two) / np.linalg.norm(one) / np.linalg.norm(two)
        errors.append(likeness("", module_print(first), module_print(mixed)).cosine - exact)
    assert abs(np.mean(errors)) < 0.04
    assert np.std(errors) < 0.2


def test_a_sketch_is_never_believed_beyond_what_spectra_allow():
    rng = np.random.default_rng(0)
    one = module_print(LowRank(rng.standard_normal((1, 40)), rng.standard_normal((30, 1))))
    flat = module_print(LowRank(np.eye(4, 40), np.eye(30, 4)))
    assert one.ceiling(flat) == pytest.approx(0.5, abs=1e-3)
    assert one.ceiling(one) == pytest.approx(1.0)


def test_a_fingerprint_is_stable():
    """Fingerprints are kept for years: another value here is another format."""
    delta = LowRank(np.eye(2, 6) * [[2.0], [1.0]], np.eye(5, 2), 0.5)
    found = module_print(delta)
    assert (found.norm, found.spectrum) == (1.11803, (0.8944, 0.4472))
    signs = [round(value / 0.055908203125) for value in found.sketch[:8].tolist()]
    assert signs == [3, -3, 1, 3, -3, 1, -1, -1]


def test_the_same_adapters_give_the_same_file(original):
    text = ["".join(fingerprints_written([fingerprint(part(original), never)])) for _ in range(2)]
    assert text[0] == text[1]
    assert len(text[0]) < 400 * len(MODULES)
    document = json.loads(text[0])
    assert document["format"] == "adapterscan-fingerprints/1"
    assert list(document["adapters"][0]["modules"]) == sorted(map(from_layers, MODULES))


BROKEN = {
    "no JSON": "{",
    "no object": "[]",
    "another format": '{"format": "x", "adapters": []}',
    "no adapters": '{"format": "adapterscan-fingerprints/1"}',
    "a list of numbers": '{"format": "adapterscan-fingerprints/1", "adapters": [1]}',
    "a short sketch": json.dumps({"format": "adapterscan-fingerprints/1", "adapters": [{
        "name": "x", "sha256": "", "base_model": None,
        "modules": {"m": {"shape": [1, 1], "norm": 1.0, "spectrum": [1.0], "sketch": "AAAA"}},
    }]}),
    "a norm that is no number": json.dumps({"format": "adapterscan-fingerprints/1", "adapters": [{
        "name": "x", "sha256": "", "base_model": None,
        "modules": {"m": {"shape": [1, 1], "norm": float("nan"), "spectrum": [1.0],
                          "sketch": "A" * 170 + "=="}},
    }]}),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_what_is_no_fingerprint_is_refused(tmp_path, how):
    path = tmp_path / "prints.json"
    path.write_text(BROKEN[how])
    with pytest.raises(BadFingerprint, match=r"prints\.json"):
        read_fingerprints(path)


def test_every_adapter_of_a_repository_is_one_part(tmp_path):
    for step in (1, 2):
        written(tmp_path / "run" / f"checkpoint-{step}", made(step))
    found = parts_of("run", open_artifact(parse_ref(str(tmp_path / "run")), HubOptions()))
    assert [item.name for item in found] == ["run:checkpoint-1", "run:checkpoint-2"]


def test_names_begin_where_the_layers_do():
    names = {
        "model.layers.0.self_attn.q_proj": "layers.0.self_attn.q_proj",
        "transformer.h.11.attn.c_attn": "h.11.attn.c_attn",
        "lm_head": "lm_head",
        "0.weight": "0.weight",
    }
    assert {name: from_layers(name) for name in names} == names


def test_the_command_tells_relations_and_what_changed(run, original, tmp_path):
    pairs = made(0) | {MODULES[0]: made(5)[MODULES[0]]}
    other = again(tmp_path, pairs)
    result = run("compare", original, other)
    assert result.returncode == 0
    assert "the same updates, 1 module changed" in result.stdout
    assert "again beside original: changed are\n  layers.0.self_attn.q_proj" in result.stdout
    found = json.loads(run("compare", original, other, original, "-f", "json").stdout)
    assert [item["same_file"] for item in found["comparisons"]] == [False, True, False]
    assert found["comparisons"][0]["changed"] == ["layers.0.self_attn.q_proj"]


def test_the_command_compares_with_fingerprints_that_were_kept(run, original, tmp_path):
    kept = tmp_path / "kept.json"
    saved = run("compare", original, "--save", kept)
    assert saved.returncode == 0
    assert saved.stdout.startswith(f"1 fingerprint written to {kept} (")
    result = run("compare", again(tmp_path, refactored(made(0))), "--known", kept)
    assert result.returncode == 0
    assert "the same updates" in result.stdout
    assert "estimates" in result.stdout


def test_the_command_says_what_it_could_not_compare(run, original, adapters, tmp_path):
    assert run("compare", original).returncode == 2
    assert run("compare", original, tmp_path / "nowhere").returncode == 2
    result = run("compare", original, adapters / "kohya")
    assert result.returncode == 3
    assert "not compared: 1 item\n  kohya: tiny_style.safetensors: " in result.stdout
    save_file(load_file(original / "adapter_model.safetensors"), tmp_path / "bare.safetensors")
    odd = run("compare", original, "--known", tmp_path / "bare.safetensors")
    assert odd.returncode == 2
    assert "holds no fingerprints" in odd.stderr
