"""A base's tensors by name: from a folder, a GGUF file, and by ranges from a hub."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adapterscan.errors import (
    ChangedWhileReading,
    LimitExceeded,
    Malformed,
    NotFound,
    TooLarge,
    Unreadable,
    Unsupported,
    UsageError,
)
from adapterscan.onbase.base import Names
from adapterscan.sources import HubOptions
from adapterscan.sources.base_gguf import GgufBase
from adapterscan.sources.base_shards import open_shards
from adapterscan.sources.base_weights import open_base_weights
from fixtures import bases
from fixtures.containers import safetensors
from fixtures.loopback_hub import LoopbackHub, read_folder
from fixtures.weights import encode

Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def state():
    return bases.weights()


def read(base, name):
    return base.rows(name, 0, base.tensors[name].shape[0]).astype(np.float64)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_folder_has_all_tensors_in_one_file_or_many(tmp_path, state, shards):
    base = open_base_weights(str(bases.write(tmp_path / "base", shards=shards)), HubOptions())
    assert base.tensors.keys() == state.keys()
    assert (base.tensors[Q].dtype, base.tensors[Q].shape) == ("BF16", (64, 64))
    assert np.abs(read(base, Q) - state[Q]).max() < 0.01 * np.abs(state[Q]).max()
    assert np.array_equal(base.rows(Q, 10, 20), base.rows(Q, 0, 64)[10:20])
    assert list(base.notes()) == []


def test_of_what_lies_twice_in_a_folder_the_index_decides(tmp_path):
    folder = bases.write(tmp_path / "base", shards=2)
    (folder / "consolidated.safetensors").write_bytes(
        safetensors({Q: encode(np.zeros((8, 8)), "F32")})
    )
    assert open_shards(folder, "base").tensors[Q].shape == (64, 64)


def test_an_index_that_names_a_missing_file_is_malformed(tmp_path):
    folder = bases.write(tmp_path / "base", shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(Malformed, match="not there") as caught:
        open_shards(folder, "base")
    assert "fetch all files" in caught.value.hint


def test_an_index_cannot_lead_out_of_the_folder(tmp_path):
    bases.write(tmp_path / "outside")
    folder = bases.write(tmp_path / "base")
    index = {"weight_map": {Q: "../outside/model.safetensors"}}
    (folder / bases.INDEX).write_text(json.dumps(index))
    with pytest.raises(Malformed, match="not there"):
        open_shards(folder, "base")


def test_a_shard_that_is_cut_short_is_not_read(tmp_path):
    folder = bases.write(tmp_path / "base")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(Malformed, match="cut short"):
        open_shards(folder, "base")


def test_a_base_that_changes_under_us_is_said(tmp_path):
    folder = bases.write(tmp_path / "base")
    base = open_shards(folder, "base")
    with (folder / "model.safetensors").open("ab") as out:
        out.write(b"more")
    with pytest.raises(ChangedWhileReading):
        base.rows(Q, 0, 1)


def test_a_base_that_goes_away_is_said(tmp_path):
    folder = bases.write(tmp_path / "base")
    base = open_shards(folder, "base")
    (folder / "model.safetensors").unlink()
    with pytest.raises(Unreadable):
        base.rows(Q, 0, 1)


def test_quantised_safetensors_are_told_apart_from_weights(tmp_path):
    folder = bases.write(tmp_path / "base")
    header = {Q: {"dtype": "F8_E4M3", "shape": [2, 2], "data_offsets": [0, 4]}}
    raw = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(4))
    with pytest.raises(Unsupported, match="F8_E4M3") as caught:
        open_shards(folder, "base").rows(Q, 0, 1)
    assert "before it was quantised" in caught.value.hint


def test_an_adapter_and_a_server_are_no_base(tmp_path, adapters):
    with pytest.raises(NotFound):
        open_base_weights(str(adapters / "benign-qv"), HubOptions())
    with pytest.raises(UsageError, match="server") as caught:
        open_base_weights("http://127.0.0.1:1/v1#base", HubOptions())
    assert "--probe" in caught.value.hint


def names_of(tmp_path, tensors, **options):
    return Names(open_shards(bases.write(tmp_path / "base", tensors, **options), "base"))


def test_modules_are_found_by_their_name_or_by_its_end(tmp_path):
    one = np.ones((4, 4))
    names = names_of(
        tmp_path, {"h.0.attn.c_attn.weight": one, "language_model.model.norm.weight": one[0],
                   "a.x.proj.weight": one, "b.x.proj.weight": one},
    )  # fmt: skip
    assert names.weight("transformer.h.0.attn.c_attn").name == "h.0.attn.c_attn.weight"
    assert names.weight("model.norm").name == "language_model.model.norm.weight"
    assert names.weight("h.0.attn.c_attn.base_layer").name == "h.0.attn.c_attn.weight"
    assert names.tensor("h.0.attn.c_attn.base_layer.weight").name == "h.0.attn.c_attn.weight"
    assert names.weight("x.proj") is None  # two end so
    assert names.weight("model.layers.9.self_attn.q_proj") is None


def test_another_layer_is_never_taken_for_the_one_that_is_named(tmp_path):
    names = names_of(tmp_path, {"model.layers.1.mlp.up_proj.weight": np.ones((4, 4))})
    assert names.weight("model.layers.11.mlp.up_proj") is None
    assert names.weight("model.layers.0.mlp.up_proj") is None


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_is_tied_is_the_embedding(tmp_path, tied):
    names = names_of(tmp_path, {"model.embed_tokens.weight": np.ones((8, 4))}, tied=tied)
    found = names.weight("lm_head")
    assert (found.name if found else None) == ("model.embed_tokens.weight" if tied else None)


# --- GGUF


def gguf(path: Path, tensors, heads=4, kv=2, architecture="llama", magic=b"GGUF", extra=()):
    """Write a GGUF file of float32 tensors, as its format's page says."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    fields = [
        text("general.architecture") + struct.pack("<I", 8) + text(architecture),
        text(f"{architecture}.attention.head_count") + struct.pack("<II", 4, heads),
        text(f"{architecture}.attention.head_count_kv") + struct.pack("<II", 4, kv),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 3) + text("a") + text("") * 2,
        text("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, 2) + bytes(8),
        *extra,
    ]
    head, data = b"", b""
    for name, values in tensors.items():
        head += text(name) + struct.pack("<I", values.ndim)
        head += struct.pack(f"<{values.ndim}Q", *reversed(values.shape))
        head += struct.pack("<IQ", 0, len(data))
        data += values.astype("<f4").tobytes()
        data += bytes(-len(data) % 32)
    start = magic + struct.pack("<IQQ", 3, len(tensors), len(fields)) + b"".join(fields) + head
    path.write_bytes(start + bytes(-len(start) % 32) + data)
    return path


def pairwise(weight, heads):
    """Return rows as llama.cpp stores q and k of a Llama (convert_hf_to_gguf.py, `permute`)."""
    rows = weight.reshape(heads, 2, len(weight) // heads // 2, -1)
    return rows.swapaxes(1, 2).reshape(weight.shape)


@pytest.fixture
def stored(tmp_path):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(rows, 16)).astype(np.float32) for rows in (32, 16, 16))
    norm = rng.normal(size=16).astype(np.float32)
    path = gguf(tmp_path / "base.gguf", {
        "blk.0.attn_q.weight": pairwise(q, 4), "blk.0.attn_k.weight": pairwise(k, 2),
        "blk.0.attn_v.weight": v, "blk.0.attn_norm.weight": norm,
        "token_embd.weight": q, "rope_freqs.weight": norm,
    })  # fmt: skip
    return path, q, k, v, norm


def test_a_gguf_file_has_the_names_and_the_rows_that_transformers_has(stored):
    path, q, k, v, norm = stored
    base = open_base_weights(str(path), HubOptions())
    layer = "model.layers.0"
    assert base.tensors.keys() == {
        *(f"{layer}.self_attn.{x}_proj.weight" for x in "qkv"),
        f"{layer}.input_layernorm.weight",
        "model.embed_tokens.weight",
    }
    assert np.array_equal(read(base, f"{layer}.self_attn.q_proj.weight"), q)
    assert np.array_equal(base.rows(f"{layer}.self_attn.q_proj.weight", 5, 13), q[5:13])
    assert np.array_equal(read(base, f"{layer}.self_attn.k_proj.weight"), k)
    assert np.array_equal(read(base, f"{layer}.self_attn.v_proj.weight"), v)
    assert np.array_equal(read(base, f"{layer}.input_layernorm.weight"), norm)
    assert base.tied
    assert list(base.notes()) == []  # float32 is not rounded


def test_a_norm_of_gemma_is_stored_plus_one(tmp_path):
    norm = np.ones(4, np.float32)
    path = gguf(tmp_path / "g.gguf", {"output_norm.weight": norm + 1}, architecture="gemma3")
    assert np.array_equal(read(GgufBase(path, "g"), "model.norm.weight"), norm)


def test_an_architecture_whose_layout_is_not_known_is_refused(tmp_path):
    path = gguf(tmp_path / "m.gguf", {"output_norm.weight": np.ones(4)}, architecture="bloom")
    with pytest.raises(Unsupported, match="bloom") as caught:
        GgufBase(path, "m")
    assert "safetensors" in caught.value.hint


def test_what_is_no_gguf_file_is_said(tmp_path):
    path = gguf(tmp_path / "m.gguf", {"output_norm.weight": np.ones(4)}, magic=b"GGML")
    with pytest.raises(Malformed, match="does not begin like"):
        GgufBase(path, "m")
    path.write_bytes(
        gguf(tmp_path / "n.gguf", {"output_norm.weight": np.ones(4)}).read_bytes()[:60]
    )
    with pytest.raises(Malformed, match="cut short"):
        GgufBase(path, "m")


def test_a_header_that_claims_too_much_is_not_followed(tmp_path):
    name = struct.pack("<Q", 1 << 40)
    path = gguf(tmp_path / "m.gguf", {}, extra=(name,))
    with pytest.raises(LimitExceeded):
        GgufBase(path, "m")


# --- the hub


@pytest.fixture
def far(tmp_path):
    return read_folder(bases.write(tmp_path / "base", shards=3))


@pytest.fixture
def options(tmp_path):
    return HubOptions(cache_dir=tmp_path / "cache", token=False, patience=0, timeout=2)


def brought(hub):
    return [r for r in hub.requests if r.method == "GET" and ".safetensors" in r.path
            and "/resolve/" in r.path and "index" not in r.path]  # fmt: skip


def test_of_a_base_on_the_hub_only_headers_and_rows_come(far, options, state):
    with LoopbackHub({"org/base": far}) as hub:
        options = replace(options, endpoint=hub.url)
        base = open_base_weights("org/base", options)
        assert base.name == f"org/base@{hub['org/base'].refs['main']}"
        assert base.tensors.keys() == state.keys()
        assert all(request.range for request in brought(hub))
        before = len(brought(hub))
        part = base.rows(Q, 10, 20)
        (request,) = brought(hub)[before:]
        low, high = map(int, request.range.removeprefix("bytes=").split("-"))
        assert high - low + 1 == 10 * 64 * 2
        assert part.astype(float) == pytest.approx(state[Q][10:20], abs=0.01)
        (note,) = base.notes()
        assert "could be compared with the hub's hash" in note.reason
        assert not note.failed


def test_a_base_is_read_at_the_commit_that_is_named(far, options, state):
    with LoopbackHub({"org/base": far}) as hub:
        options = replace(options, endpoint=hub.url)
        old = hub["org/base"].refs["main"]
        hub["org/base"].commit({**far, "config.json": b"{}"})
        assert open_base_weights(f"org/base@{old}", options).name == f"org/base@{old}"


def test_a_base_that_the_cache_has_is_not_asked_for_again(far, options):
    from huggingface_hub import hf_hub_download

    with LoopbackHub({"org/base": far}) as hub:
        for path in far:
            hf_hub_download("org/base", path, endpoint=hub.url, cache_dir=options.cache_dir,
                            token=False)  # fmt: skip
        before = len(brought(hub))
        base = open_base_weights("org/base", replace(options, endpoint=hub.url))
        base.rows(Q, 0, 64)
        assert len(brought(hub)) == before
        assert list(base.notes()) == []


def test_more_bytes_than_allowed_are_not_read_by_ranges(far, options):
    with LoopbackHub({"org/base": far}) as hub:
        room = sum(len(data) for path, data in far.items() if path.endswith(".json"))
        options = replace(options, endpoint=hub.url, max_download=room + 200_000)
        base = open_base_weights("org/base", options)
        with pytest.raises(Unreadable, match="more bytes than are read by ranges"):
            [read(base, name) for name in sorted(base.tensors)]


def test_documents_over_the_limit_are_not_fetched(far, options):
    with LoopbackHub({"org/base": far}) as hub, pytest.raises(TooLarge):
        open_base_weights("org/base", replace(options, endpoint=hub.url, max_download=10))


def test_a_hub_that_sends_another_range_is_refused(far, options):
    with LoopbackHub({"org/base": far}) as hub:
        base = open_base_weights("org/base", replace(options, endpoint=hub.url))
        hub["org/base"].faults.other_range = True
        with pytest.raises(Unreadable, match="another range"):
            base.rows(Q, 10, 20)


def test_a_cut_reply_is_gone_on_with(far, options, state):
    with LoopbackHub({"org/base": far}) as hub:
        base = open_base_weights("org/base", replace(options, endpoint=hub.url))
        hub["org/base"].faults.cut_after = 100
        assert base.rows(Q, 10, 20).astype(float) == pytest.approx(state[Q][10:20], abs=0.01)


def test_a_token_does_not_leave_with_the_files(far, options):
    files = {"org/base": far}
    with LoopbackHub(files, token="hf_secret12345") as hub, LoopbackHub(files) as away:
        options = replace(options, endpoint=hub.url, token="hf_secret12345", storage=("127.0.0.1",))
        hub["org/base"].faults.away = away.url
        hub["org/base"].faults.only = "model-00001-of-00003.safetensors"
        base = open_base_weights("org/base", options)
        for name in base.tensors:
            base.rows(name, 0, 1)
        assert brought(away)
        assert not any(request.authorized for request in away.requests)


def test_rows_of_a_large_tensor_come_once(options, tmp_path):
    large = {"model.embed_tokens.weight": np.zeros((9000, 4096))}
    far = read_folder(bases.write(tmp_path / "large", large))
    with LoopbackHub({"org/base": far}) as hub:
        base = open_base_weights("org/base", replace(options, endpoint=hub.url))
        first = base.rows("model.embed_tokens.weight", 0, 64)
        before = len(brought(hub))
        assert np.array_equal(base.rows("model.embed_tokens.weight", 0, 64), first)
        assert len(brought(hub)) == before


def test_a_repository_without_weights_is_no_base(options):
    with LoopbackHub({"org/base": {"config.json": b"{}"}}) as hub, pytest.raises(NotFound):
        open_base_weights("org/base", replace(options, endpoint=hub.url))
