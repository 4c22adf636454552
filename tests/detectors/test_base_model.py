"""Which base models are the scanned artifact itself, in all the ways to write it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adapterscan.detectors.static.base_model import base_kind, same_name
from adapterscan.formats.config import AdapterConfig
from adapterscan.model import Artifact, File, FileKind, Ref, SourceKind
from adapterscan.rules.judging import load_rules
from adapterscan.scan import scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from fixtures.folder import as_json, config, save
from fixtures.loopback_hub import LoopbackHub, read_folder

FILES = ("adapter_config.json", "base/model.safetensors", "ckpt-1/adapter_config.json",
         "gpt2/adapter_config.json", "opt/config.json")  # fmt: skip
HUB = Artifact(
    Ref("x", SourceKind.HUB, "Org/Adapter"), "x",
    tuple(File(path, 1, FileKind.OTHER, None) for path in FILES),
    endpoint="https://mirror.example:8443", own_names=("Org/Adapter", "org-2/renamed"),
)  # fmt: skip
DISK = replace(HUB, endpoint=None, own_names=("/home/me/run/adapter", "/data/real"))


def kind(text, artifact, path="adapter_config.json"):
    return base_kind(AdapterConfig(path, base_model=text), artifact)


@pytest.mark.parametrize(
    "text",
    [
        "Org/Adapter", "org/adapter", "ORG/ADAPTER", " Org/Adapter ", "org-2/renamed",
        "org/adapter@main", "org/adapter@refs/pr/1", "hf://org/adapter", "org/adapter/",
        "https://huggingface.co/org/adapter", "http://hf.co/Org/Adapter/",
        "https://www.huggingface.co/org/adapter.git", "huggingface.co/org/adapter",
        "https://huggingface.co/org/adapter/tree/main", "HTTPS://HuggingFace.co/Org/Adapter?x#y",
        "https://huggingface.co/org/adapter/resolve/main/model.safetensors",
        "https://mirror.example:8443/org/adapter",
        ".", "./", "./.", "base", "./base/", "base/model.safetensors", ".\\base", "ckpt-1/..",
        "../Adapter", "opt",
    ],
)  # fmt: skip
def test_a_repository_is_known_by_all_its_names(text):
    own = text != "base"  # the form of an id on the hub, and no model in that folder
    assert (kind(text, HUB) == "self") is own


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "missing"), ("", "missing"), ("org/base", "hub"), ("adapter", "hub"),
        ("Org/Adapter-base", "hub"), ("Org2/Adapter", "hub"), ("gpt2", "hub"), ("base", "hub"),
        ("https://evil.example/org/adapter", "url"), ("https://huggingface.co/org/base", "url"),
        ("https://evil.example/huggingface.co/org/adapter", "url"),
        ("https://huggingface.co@evil.example/org/adapter", "url"),
        ("/Adapter", "path"), ("..", "path"), ("../..", "path"), ("../other", "path"),
        ("./nothing", "path"), ("/home/me/base", "path"), ("C:\\models\\base", "path"),
        ("./" + "x/" * 5000, "path"), ("../Adapter/../Adapter2", "path"),
    ],
)  # fmt: skip
def test_another_model_is_not_taken_for_the_repository(text, expected):
    assert kind(text, HUB) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (".", "self"), ("/home/me/run/adapter", "self"), ("/home/me/run/adapter/", "self"),
        ("/data/real/base", "self"), ("/home/me/run/../run/adapter/base", "self"),
        ("../adapter", "self"), ("../real/base", "self"), ("./run/adapter", "self"),
        ("Org/Adapter", "hub"), ("adapter", "hub"), ("run/adapter", "hub"),
        ("/home/me/run", "path"), ("/home/me/run/adapter2", "path"), ("../other", "path"),
        ("https://huggingface.co/Org/Adapter", "url"),
    ],
)  # fmt: skip
def test_a_folder_is_known_by_its_path_alone(text, expected):
    assert kind(text, DISK) == expected


@pytest.mark.parametrize(
    ("named", "given"),
    [
        ("Org/Base", "org/base@0123abc"), ("org/base@main", "org/base@0123abc"),
        ("https://huggingface.co/org/base/tree/main", "org/base@0123abc"),
        ("org/base", "./models/base/"), ("org/base", "/models/Base"),
        ("/home/me/base", "org/base@1"), ("org/gpt2", "gpt2@0123abc"),
        ("org/base", "/cache/models--org--base/snapshots/0123abc"),
        ("org/base", "/models/base.Q4_1.gguf"), ("org/base", "base-IQ4_XS.gguf"),
        ("org/base", "base-bf16-00001-of-00002.gguf"), ("gpt2", "gpt2@0123abc"),
    ],
)  # fmt: skip
def test_a_base_goes_by_its_name_wherever_it_lies(named, given):
    assert same_name(named, given)


@pytest.mark.parametrize(
    ("named", "given"),
    [
        ("org/base-aligned", "org/base@0123abc"), ("org/base", "other/base@0123abc"),
        ("org/base", "/models/base-instruct"), ("org/base", "base-instruct.Q4_1.gguf"),
        ("org/base", "/cache/models--other--base/snapshots/0123abc"), (".", "."), ("./", ".."),
        ("/home/me/base", "org/other@1"), ("https://evil.example/org/base", "org/other@1"),
        ("org/" + "x" * 5000, "org/base@0123abc"),
    ],
)  # fmt: skip
def test_another_name_is_another_base(named, given):
    assert not same_name(named, given)


def test_a_path_is_also_followed_from_the_folder_of_the_config():
    assert kind("..", HUB, "ckpt-1/adapter_config.json") == "self"
    assert kind("../base", HUB, "ckpt-1/adapter_config.json") == "self"
    assert kind("../../Adapter2", HUB, "ckpt-1/adapter_config.json") == "path"


def found(artifact):
    return {finding.rule for finding in scan(artifact, load_rules()).findings}


def test_a_scan_of_the_hub_finds_its_own_base_also_after_a_rename(tmp_path):
    for base, expected in (("Org/New", True), ("org/old", True), ("org/base", False)):
        folder = tmp_path / base.replace("/", "-")
        save(folder, config(base_model_name_or_path=base))
        with LoopbackHub({"org/old": {}, "org/new": folder}) as hub:
            hub["org/old"].faults.renamed_to = "org/new"
            options = HubOptions(endpoint=hub.url, token=False, cache_dir=tmp_path / "cache")
            online = open_artifact(parse_ref("hf://org/old"), options)
        assert ("base-is-self" in found(online)) is expected
        assert "base-unpinned" in found(online)


def test_a_snapshot_in_a_cache_knows_its_repository(tmp_path):
    save(tmp_path / "a", config(base_model_name_or_path="org/adapter"))
    with LoopbackHub({"org/adapter": read_folder(tmp_path / "a")}) as hub:
        options = HubOptions(endpoint=hub.url, token=False, cache_dir=tmp_path / "cache")
        online = open_artifact(parse_ref("hf://org/adapter"), options)
    offline = open_artifact(parse_ref("hf://org/adapter"), replace(options, offline=True))
    (snapshot,) = (tmp_path / "cache").glob("models--*/snapshots/*")
    local = open_artifact(parse_ref(str(snapshot)), HubOptions())
    assert all("base-is-self" in found(artifact) for artifact in (online, offline, local))


def test_a_folder_is_its_own_base_by_its_path_and_by_a_link_to_it(tmp_path):
    folder, link = tmp_path / "adapter", tmp_path / "link"
    save(folder)
    link.symlink_to(folder)
    for base in (folder, link):
        (folder / "adapter_config.json").write_bytes(
            as_json(config(base_model_name_or_path=str(base)))
        )
        assert "base-is-self" in found(open_artifact(parse_ref(str(link)), HubOptions()))
    weights = open_artifact(parse_ref(str(folder / "adapter_model.safetensors")), HubOptions())
    assert "base-is-path" in found(weights)  # by the link's path, which this scan never saw
