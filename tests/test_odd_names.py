"""Payloads under names that no list knows: content is looked into, and nothing passes unnamed."""

import bz2
import gzip
import json
import lzma

import pytest

from fixtures.loopback_hub import LoopbackHub, read_folder

CALL = b"cposix\nsystem\n(S'echo inert'\ntR."  # never unpickled


@pytest.fixture
def folder(tmp_path, adapters):
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((adapters / "benign-qv" / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter_model", CALL),
        ("adapter_model.bin.bak", CALL),
        ("state.th", CALL),
        ("data.sav", CALL),
        (".pkl", CALL),
        ("model.weights", CALL),
        ("x.joblib.z", bz2.compress(CALL)),
        ("x.pkl.gz", gzip.compress(CALL)),
        ("x.pkl.xz", lzma.compress(CALL)),
        ("tokenizer.model", CALL),
        ("README.md", CALL),
        ("notes.txt", CALL),
    ],
)
def test_a_pickle_under_any_name_is_found(run, folder, name, content):
    (folder / name).write_bytes(content)
    result = run("scan", folder)
    assert result.returncode == 1
    assert "pickle-code-execution" in result.stdout


@pytest.mark.parametrize("name", ["training_args.bin", "x.joblib", "rng_state.pth"])
def test_a_file_that_should_unpickle_and_holds_no_pickle_is_not_analysed(run, folder, name):
    (folder / name).write_bytes(b"\xff" * 100)
    result = run("scan", folder)
    assert result.returncode == 3
    assert name in result.stdout


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("sample.png", b"\x89PNG\r\n\x1a\n" + bytes(64)),
        ("README.md", b"# An adapter\n"),
        ("data.jsonl", b'{"a": 1}\n'),
        ("blob.unheard-of", bytes(range(256))),
    ],
)
def test_ordinary_files_beside_an_adapter_change_nothing(run, folder, name, content):
    (folder / name).write_bytes(content)
    assert run("scan", folder).returncode == 0


@pytest.mark.parametrize("name", [".git", ".cache/huggingface"])
def test_folders_that_are_passed_over_are_named(run, folder, name):
    (folder / "sub" / name).mkdir(parents=True)
    assert f"sub/{name}" in run("scan", folder, "--verbose").stdout


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("processor_config.json", b'{"auto_map": {"AutoProcessor": "evil.Processor"}}'),
        ("deep/feature_config.json", b'{"a": {"b": {"auto_map": "x.Y"}}}'),
        ("config.json", b'{"_attn_implementation": "org/kernel"}'),
        ("generation_config.json", b'{"custom_generate": "org/repo"}'),
    ],
)
def test_code_hooks_are_seen_in_every_config(run, folder, name, content):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    result = run("scan", folder)
    assert result.returncode == 1
    assert "code-hook" in result.stdout


@pytest.mark.parametrize("name", ["evil/__init__.py", "evil.cpython-311-x86_64-linux-gnu.so"])
def test_an_import_sink_that_the_repository_ships_is_high(run, folder, name):
    config = json.loads((folder / "adapter_config.json").read_text())
    config["auto_mapping"] = {"base_model_class": "M", "parent_library": "evil"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    assert "import-sink-shipped" in run("scan", folder).stdout


def test_on_the_hub_unknown_names_are_fetched_and_plain_ones_are_named(run, adapters, tmp_path):
    files = {**read_folder(adapters / "benign-qv"), "data.sav": CALL, "picture.png": b"x"}
    with LoopbackHub({"org/odd": files}) as hub:
        result = run("scan", "org/odd", "--endpoint", hub.url, "--cache-dir", tmp_path / "cache")
    assert result.returncode == 1
    assert "posix.system" in result.stdout
    assert "picture.png" in result.stdout
