"""A base's tokenizer and templates: brought from where it lies, and only when they are wanted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adapterscan.errors import SourceError
from adapterscan.onbase.profile import about
from adapterscan.onbase.profile_build import build
from adapterscan.sources import HubOptions
from adapterscan.sources.base_documents import base_documents
from adapterscan.sources.base_weights import find_base
from fixtures import bases
from fixtures.folder import put
from fixtures.loopback_hub import FOREVER, LoopbackHub, read_folder
from fixtures.recipes import tokenizers


@pytest.fixture
def far(tmp_path):
    return read_folder(bases.write(tmp_path / "base"))


@pytest.fixture
def options(tmp_path):
    return HubOptions(cache_dir=tmp_path / "cache", token=False, patience=0, timeout=2)


def test_of_a_base_on_the_hub_tokenizer_files_come_only_when_they_are_wanted(far, options):
    files = {**far, **tokenizers.files(), "tokenizer.py": b"", "sub/tokenizer.json": b"{}"}
    with LoopbackHub({"org/base": files}) as hub:
        options = replace(options, endpoint=hub.url)
        documents = base_documents("org/base", options)
        assert not hub.requests
        assert {file.path for file in documents.bring()} == {
            "tokenizer.json", "tokenizer_config.json", "generation_config.json",
        }  # fmt: skip
        assert not any("/resolve/" in r.path and "safetensors" in r.path for r in hub.requests)


def test_a_tokenizer_file_that_the_hub_does_not_give_is_said(far, options):
    with LoopbackHub({"org/base": {**far, **tokenizers.files()}}) as hub:
        hub["org/base"].faults.only = "tokenizer.json"
        hub["org/base"].faults.broken = FOREVER
        with pytest.raises(SourceError):
            base_documents("org/base", replace(options, endpoint=hub.url)).bring()


def test_a_profile_has_the_digests_of_a_base_tokenizer(tmp_path):
    folder = bases.write(tmp_path / "base")
    put(folder, tokenizers.files())
    found = find_base(str(folder), HubOptions())
    base = found.open()
    build(base, about(base, "x", found.documents, 4), tmp_path / "a.profile", lambda _: None)
    documents = base_documents(str(tmp_path / "a.profile"), HubOptions())
    assert "tokenizer.json" in documents.digests
    assert documents.bring() == ()
