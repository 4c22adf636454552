"""A base model is brought here whole, at one commit, without code and pickles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adapterscan.errors import NotFound, SourceError, TooLarge, Unreachable, UsageError
from adapterscan.sources import HubOptions
from adapterscan.sources.base import open_base
from fixtures.loopback_hub import LoopbackHub

BASE = {
    "config.json": b"{}",
    "model.safetensors": b"w" * 1000,
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "pytorch_model.bin": b"pickle",
    "modeling_own.py": b"print('no')",
    "README.md": b"a base",
}


@pytest.fixture
def hub():
    with LoopbackHub({"org/base": BASE}) as served:
        yield served


@pytest.fixture
def options(hub: LoopbackHub, tmp_path: Path) -> HubOptions:
    return HubOptions(endpoint=hub.url, cache_dir=tmp_path / "cache", token=False)


def test_a_base_comes_at_one_commit_without_code_and_pickles(hub, options) -> None:
    base = open_base("org/base", options)
    commit = hub["org/base"].refs["main"]
    assert base.name == f"org/base@{commit}"
    assert base.bytes == 1000
    assert sorted(path.name for path in base.path.iterdir()) == [
        "chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert {"pytorch_model.bin", "modeling_own.py"}.isdisjoint(hub.fetched())


def test_only_the_top_of_a_repository_is_fetched(options) -> None:
    files = {**BASE, "onnx/model.safetensors": b"x" * 10, "checkpoint-1/config.json": b"{}"}
    with LoopbackHub({"org/base": files}) as hub:
        base = open_base("org/base", replace(options, endpoint=hub.url))
    assert base.bytes == 1000
    assert not [path for path in base.path.iterdir() if path.is_dir()]


def test_an_adapter_in_place_of_a_base_is_told_apart(options) -> None:
    hub = LoopbackHub({"org/base": {"adapter_config.json": b"{}"}})
    with hub, pytest.raises(NotFound, match=r"config\.json") as caught:
        open_base("org/base", replace(options, endpoint=hub.url))
    assert "not an adapter" in caught.value.hint


def test_a_token_stays_out_of_what_is_said_about_a_base(options) -> None:
    token = "hf_" + "s" * 30
    with pytest.raises(SourceError) as caught:
        open_base("org/nowhere", replace(options, token=token))
    said = f"{caught.value}{caught.value.hint}{caught.value.__cause__}{caught.value.__context__}"
    assert token not in said


def test_what_was_fetched_is_there_offline(options) -> None:
    commit = open_base("org/base", options).name.partition("@")[2]
    again = open_base(f"org/base@{commit}", replace(options, offline=True))
    assert again.bytes == 1000


def test_a_base_that_was_never_fetched_is_missed_offline(options) -> None:
    with pytest.raises((Unreachable, NotFound)):
        open_base("org/other", replace(options, offline=True))


def test_a_base_that_the_hub_does_not_have_is_not_found(options) -> None:
    with pytest.raises((NotFound, SourceError)) as caught:
        open_base("org/nowhere", options)
    assert "org/nowhere" in str(caught.value)
    assert caught.value.hint


def test_a_base_over_the_limit_is_not_fetched(hub, options) -> None:
    with pytest.raises(TooLarge):
        open_base("org/base", replace(options, max_download=999))
    assert "model.safetensors" not in hub.fetched()


def test_a_folder_needs_a_config_and_safetensors(tmp_path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(NotFound, match=r"config\.json"):
        open_base(str(tmp_path), HubOptions())
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    assert open_base(str(tmp_path), HubOptions()).bytes == 5


def test_a_gguf_file_that_is_not_there_is_said(tmp_path) -> None:
    with pytest.raises(NotFound):
        open_base(str(tmp_path / "model.gguf"), HubOptions())


def test_a_file_that_is_no_model_is_refused(tmp_path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"")
    with pytest.raises(UsageError, match="no folder, GGUF file or hub"):
        open_base(str(path), HubOptions())
