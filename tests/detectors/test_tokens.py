"""Nearest tokens of soft prompts, and how far replaced embeddings lie from the base's own."""

import numpy as np
import pytest

from adapterscan.rules.judging import load_rules
from adapterscan.scan import ScanOptions, exit_code, scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from adapterscan.sources.base_shards import open_shards
from fixtures import bases
from fixtures.folder import save
from fixtures.weights import encode_all

WIDTH = bases.weights()["model.embed_tokens.weight"].shape[1]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return open_shards(bases.write(tmp_path_factory.mktemp("base")), "example-org/tiny-llama")


@pytest.fixture(scope="module")
def book():
    return load_rules()


@pytest.fixture
def scanned(base, book, tmp_path):
    def of(kind, tensors, **fields):
        settings = {
            "peft_type": kind, "base_model_name_or_path": "example-org/tiny-llama",
            "revision": "0" * 40, "task_type": "CAUSAL_LM", **fields,
        }  # fmt: skip
        save(tmp_path / "adapter", settings, encode_all(tensors, "F32"))
        artifact = open_artifact(parse_ref(str(tmp_path / "adapter")), HubOptions())
        return scan(artifact, book, options=ScanOptions(base=base))

    return of


def facts(report, name):
    return [item for item in report.evidence if item.name == name]


def told(report):
    return " ".join(item.reason for item in report.coverage.skipped if item.failed)


def embedding():
    return bases.weights()["model.embed_tokens.weight"].astype(np.float32)


def test_a_prompt_of_tokens_is_read_back(scanned):
    written = [5, 17, 300]
    prompt = embedding()[written] * np.array([[1.0], [3.0], [0.1]])
    found = facts(scanned("PROMPT_TUNING", {"prompt_embeddings": prompt}), "prompt.token")
    assert [item.details["nearest"] for item in found] == written
    assert all(item.details["cosine"] > 0.999 for item in found)
    assert found[1].details["ratio"] > 10 * found[2].details["ratio"]


def test_a_prompt_is_never_taken_for_analysed(scanned):
    report = scanned("PROMPT_TUNING", {"prompt_embeddings": embedding()[:3]})
    assert exit_code([report], None) == 3
    assert "hidden prefix" in told(report)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_vector_of_nothing_is_near_no_token(scanned, value):
    prompt = np.full((2, WIDTH), value)
    found = facts(scanned("PROMPT_TUNING", {"prompt_embeddings": prompt}), "prompt.token")
    assert [item.details["nearest"] for item in found] == [None, None]


def test_vectors_of_another_width_are_told(scanned):
    report = scanned("PROMPT_TUNING", {"prompt_embeddings": np.ones((2, WIDTH + 1))})
    assert not facts(report, "prompt.token")
    assert "the embedding of" in told(report)


def test_keys_and_values_are_not_compared_with_tokens(scanned):
    report = scanned("PREFIX_TUNING", {"prompt_embeddings": np.ones((2, WIDTH))})
    assert not facts(report, "prompt.token")
    assert "keys and values" in told(report)


TOKENS = "base_model.model.model.embed_tokens.trainable_tokens_delta"


def test_a_token_that_becomes_another_is_told(scanned):
    report = scanned(
        "TRAINABLE_TOKENS", {TOKENS: embedding()[[9, 8]]}, token_indices=[500, 8],
        target_modules=["embed_tokens"],
    )  # fmt: skip
    first, second = facts(report, "token.moved")
    assert (first.details["token"], first.details["nearest"]) == (500, 9)
    assert first.value > 0.5
    assert (second.details["nearest"], second.value) == (8, pytest.approx(0, abs=0.01))
    assert exit_code([report], None) == 0


@pytest.mark.parametrize(
    "indices", [[1], [1, 2, 3], [1, 512], [1, -1], [1, True], "1,2", None, {"other": [1, 2]}]
)
def test_tokens_that_do_not_fit_are_told(scanned, indices):
    report = scanned("TRAINABLE_TOKENS", {TOKENS: embedding()[:2]}, token_indices=indices)
    assert not facts(report, "token.moved")
    assert exit_code([report], None) == 3


def test_tokens_of_no_embedding_are_told(scanned):
    name = TOKENS.replace("embed_tokens", "elsewhere")
    report = scanned("TRAINABLE_TOKENS", {name: embedding()[:2]}, token_indices=[1, 2])
    assert "no embedding" in told(report)


def test_a_type_that_replaces_nothing_is_not_taken_for_analysed(scanned):
    report = scanned("LN_TUNING", {"base_model.model.x.prompt_embeddings": np.ones((2, 2))})
    assert exit_code([report], None) == 3


def test_a_layer_under_the_name_of_ln_tuning_is_a_replaced_weight(scanned):
    """PEFT copies whatever layer is targeted: a whole projection travels as a norm does."""
    state = bases.weights()
    down, norm = "model.layers.1.mlp.down_proj", "model.layers.1.input_layernorm"
    report = scanned(
        "LN_TUNING",
        {
            f"base_model.model.{name}.ln_tuning_layers.weight": 1.5 * state[f"{name}.weight"]
            for name in (down, norm)
        },
        target_modules=["down_proj", "input_layernorm"],
    )
    moved = {item.details["base_tensor"]: item.value for item in facts(report, "overwrite.moved")}
    assert moved == pytest.approx({f"{down}.weight": 0.5, f"{norm}.weight": 0.5}, rel=0.02)
    assert "declared-full-layer" in {finding.rule for finding in report.findings}


def test_a_layer_that_ln_tuning_does_not_target_is_unmatched(scanned):
    name = "base_model.model.model.layers.1.mlp.down_proj.ln_tuning_layers.weight"
    report = scanned("LN_TUNING", {name: np.ones((4, 4))}, target_modules=["input_layernorm"])
    assert facts(report, "tensor.unmatched")
    assert exit_code([report], None) == 3
