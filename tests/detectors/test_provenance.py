"""Names, licences, cards, leaks and signatures, through the whole scan."""

from __future__ import annotations

import base64
import gzip
import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapterscan.model import Outcome, Report
from adapterscan.provenance.signing import load_key
from adapterscan.reporters.json_report import render_json
from adapterscan.rules.book import load_rules
from adapterscan.scan import ScanOptions, scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from fixtures.containers import safetensors
from fixtures.folder import as_json, config, honest_tensors, save
from tests.conftest import ADAPTERS, ROOT
from tests.provenance.made_up import hub_token, letters, private_key

SIGNED = ROOT / "fixtures" / "signed"
RULES = load_rules()
NEW = ("hub.", "name.", "base.rep", "licence.", "card.", "leak.", "signature.")


def scanned(folder: Path, **options: Any) -> Report:
    artifact = open_artifact(parse_ref(str(folder)), HubOptions())
    return scan(artifact, RULES, options=ScanOptions(workers=1, **options))


def facts(report: Report, name: str) -> list[tuple[str, Any]]:
    return [(str(item.subject), item.value) for item in report.evidence if item.name == name]


def details(report: Report, name: str, key: str) -> list[Any]:
    return [item.details[key] for item in report.evidence if item.name == name]


def findings(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings}


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    save(folder, others={"README.md": b"A small adapter.\n"})
    return folder


# Leaks


def places(folder: Path, token: str) -> None:
    """Put `token` wherever an adapter's author may leave one."""
    (folder / ".env").write_text(f"HF_TOKEN={token}\n")
    (folder / "trainer_state.json").write_text(json.dumps({"args": {"token": token}}))
    (folder / "wide.txt").write_bytes(f"token {token}".encode("utf-16"))
    (folder / "escaped.json").write_text(json.dumps({"a": token}).replace("hf_", "\\u0068f_"))
    (folder / "README.md").write_text(f'login(token="{token}")\n')
    (folder / "note.ipynb").write_text(json.dumps({"cells": [{"source": [f"t = '{token}'"]}]}))
    record = b"\x00\x01\xff\x12" + token.encode() + b"B"
    (folder / "events.out.tfevents.1.host.2.0").write_bytes(record)
    (folder / "adapter_config.json").write_bytes(as_json(config(author=token)))
    weights = safetensors(honest_tensors(), metadata={"note": token})
    (folder / "adapter_model.safetensors").write_bytes(weights)
    (folder / "training_args.bin").write_bytes(pickle.dumps({"hub_token": token}, protocol=2))
    with zipfile.ZipFile(folder / "optimizer.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"hub_token": token}))
    (folder / ".git").mkdir()
    remote = f"https://someone:{token}@hub.example/a"
    (folder / ".git" / "config").write_text(f'[remote "origin"]\n\turl = {remote}\n')


def test_a_token_is_found_wherever_it_lies_and_is_in_no_report(adapter: Path) -> None:
    token = hub_token()
    places(adapter, token)
    report = scanned(adapter)
    sure = {s.subject.file for s in report.evidence if s.name == "leak.secret"}
    assert sure == {
        ".env", ".git/config", "README.md", "adapter_config.json", "adapter_model.safetensors",
        "escaped.json", "events.out.tfevents.1.host.2.0", "note.ipynb", "optimizer.pt",
        "trainer_state.json", "training_args.bin", "wide.txt",
    }  # fmt: skip
    assert "secret-leaked" in findings(report)
    assert token[5:] not in "".join(render_json(Outcome((report,), (), 0, None)))
    assert token[5:] not in repr(report)


def test_a_secret_is_kept_out_of_whatever_else_the_report_quotes(adapter: Path) -> None:
    password = letters(20)
    base = f"https://someone:{password}@hub.example/org/model"
    (adapter / "adapter_config.json").write_bytes(
        as_json(config(base_model_name_or_path=base, tokenizer_name_or_path=f"/a/{hub_token()}"))
    )
    (adapter / "key.pem").write_text(private_key())
    report = scanned(adapter)
    assert {"base-is-url", "secret-leaked"} <= findings(report)
    shown = "".join(render_json(Outcome((report,), (), 0, None)))
    assert password not in shown
    assert hub_token()[5:] not in shown
    assert letters(64, seed=3) not in shown


def test_a_pickle_with_a_token_is_not_loaded_and_its_line_is_told(adapter: Path) -> None:
    (adapter / "training_args.bin").write_bytes(
        pickle.dumps(["first", {"wandb": letters(40, "0123456789abcdef")}], protocol=0)
    )
    assert facts(scanned(adapter), "leak.secret") == [("training_args.bin", "Weights & Biases key")]


def packed(text: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("run.env", text)
    return data.getvalue()


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("run.log.gz", lambda text: gzip.compress(text.encode())),
        ("backup.zip", packed),
        ("wide.txt", lambda text: text.encode("utf-32")),
        ("coloured.log", lambda text: f"\x1b[31m{text}\x1b[0m".encode()),
        ("latin.txt", lambda text: b"caf\xe9 " + text.encode()),
        ("dos.env", lambda text: f"a\r\nb={text}\r\n".encode()),
        ("x.pkl", lambda text: pickle.dumps(pickle.dumps({"t": text}))),
    ],
)
def test_a_token_is_found_however_it_is_written(
    adapter: Path, name: str, written: Callable[[str], bytes]
) -> None:
    (adapter / name).write_bytes(written(hub_token()))
    assert next(place for place, _ in facts(scanned(adapter), "leak.secret")).startswith(name)


def test_images_and_vocabularies_are_not_searched(adapter: Path) -> None:
    (adapter / "tokenizer.json").write_text(json.dumps({"a": hub_token()}))
    (adapter / "x.png").write_text(hub_token())
    assert facts(scanned(adapter), "leak.secret") == []


def test_what_was_not_searched_is_said(adapter: Path) -> None:
    (adapter / "big.log").write_bytes(b"a line\n" * 700_000 + hub_token().encode())
    report = scanned(adapter)
    assert facts(report, "leak.secret") == []
    assert any("searched for secrets" in item.reason for item in report.coverage.skipped)


def test_decoys_before_a_secret_do_not_pass_for_a_search(adapter: Path) -> None:
    (adapter / "a.txt").write_text("T3BlbkFJ " * 3_000)
    report = scanned(adapter)
    assert not report.coverage.complete


# Names


def based_on(adapter: Path, base: str) -> Report:
    (adapter / "adapter_config.json").write_bytes(as_json(config(base_model_name_or_path=base)))
    return scanned(adapter)


@pytest.mark.parametrize(
    ("base", "rule"),
    [
        ("meta-lIama/Llama-3.1-8B", "base-lookalike"),
        ("Qwem/Qwen2.5-7B-Instruct", "base-lookalike"),
        ("rnistralai/Mistral-7B-v0.1@main", "base-lookalike"),
        ("https://huggingface.co/meta_llama/Llama-3.1-8B", "base-lookalike"),
        ("hf.co/TheBIoke/x", "base-resembles"),
        ("gоogle/gemma-2-2b", "name-foreign-letters"),
        ("meta\u2011llama/anything", "name-foreign-letters"),
        ("someone/Llama-3.1-8B", "base-republished"),
        ("hf://meta-lIama/Llama-3.1-8B", "base-lookalike"),
        ("meta-llama3/Llama-3.1-8B", "base-lookalike"),
        ("QwenLM/Qwen2.5-7B", "base-owner-extends"),
        ("roberta-bas\u0435", "name-foreign-letters"),
    ],
)
def test_a_base_that_could_be_taken_for_another_is_found(
    adapter: Path, base: str, rule: str
) -> None:
    assert rule in findings(based_on(adapter, base))


@pytest.mark.parametrize(
    "base",
    ["meta-llama/Llama-3.1-8B", "META-LLAMA/llama-3.1-8b", "gpt2", "./llama", "/data/meta-lIama/x",
     "NousResearch/Meta-Llama-3-8B", "my-org/my-model", "unsloth/Qwen2.5-7B-Instruct-bnb-4bit"],
)  # fmt: skip
def test_an_honest_base_is_not_accused(adapter: Path, base: str) -> None:
    assert facts(based_on(adapter, base), "name.lookalike") == []


def test_the_owner_of_the_repository_is_compared(adapter: Path) -> None:
    artifact = open_artifact(parse_ref(str(adapter)), HubOptions())
    report = scan(replace(artifact, own_names=("TheBIoke/x",)), RULES)
    assert "owner-lookalike" in findings(report)
    report = scan(replace(artifact, own_names=("cloneofsimo/lora",)), RULES)
    assert facts(report, "name.lookalike") == []


def test_more_names_than_are_compared_leave_the_scan_incomplete(adapter: Path) -> None:
    many = {f"a{number}": f"owner{number}/model" for number in range(100)}
    for number in range(25):
        folder = adapter / f"{number}"
        folder.mkdir()
        mine = {key: f"{number}{value}" for key, value in many.items()}
        (folder / "adapter_config.json").write_bytes(as_json(config(adapters=mine)))
    report = scanned(adapter)
    assert any(item.detector == "names" and item.failed for item in report.coverage.skipped)


def test_a_letter_of_another_script_is_shown_as_such(adapter: Path) -> None:
    report = based_on(adapter, "m\u0435ta-llama/x")
    assert details(report, "name.lookalike", "name") == ["m\\u0435ta-llama/x"]


# Cards and licences


def with_card(adapter: Path, text: str, base: str = "meta-llama/Llama-3.1-8B") -> Report:
    (adapter / "README.md").write_text(text)
    return based_on(adapter, base)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("| lora_r | 64 |", "rank"),
        ("LoRA rank: 64", "rank"),
        ("- **r**: 64", "rank"),
        ("`lora_alpha`: 64", "alpha"),
        ("trainable params: 4,194,304", "parameters"),
        ("target_modules: ['q_proj']", "modules"),
        ("### Framework versions\n\n- PEFT 0.7.1", "peft_version"),
    ],
)
def test_a_claim_that_is_not_so_is_told(adapter: Path, body: str, what: str) -> None:
    report = with_card(adapter, f"# Adapter\n{body}\n")
    assert details(report, "card.differs", "what") == [what]


@pytest.mark.parametrize(
    "body",
    [
        "lora_r: 4, lora_alpha: 8", "target_modules: ['q_proj', 'v_proj', 'k_proj']",
        "- PEFT 0.21.2", "We tried ranks 8 and 16; rank: 16 and rank: 4.", "rank: 4.5",
        "learning rate: 64", "page rank 64", "r2: 64", "error: 64",
    ],
)  # fmt: skip
def test_a_claim_that_is_so_or_none_is_not_told(adapter: Path, body: str) -> None:
    assert facts(with_card(adapter, body), "card.differs") == []


@pytest.mark.parametrize(
    ("named", "differs"),
    [
        ("mistralai/Mistral-7B-v0.1", True),
        ("meta-llama/Llama-3.2-1B", True),
        ("meta-llama/Meta-Llama-3.1-8B", False),
        ("unsloth/llama-3.1-8b-bnb-4bit", False),
        ("[other/x, meta-llama/Llama-3.1-8B]", False),
    ],
)
def test_another_base_in_the_card_is_told(adapter: Path, named: str, differs: bool) -> None:
    report = with_card(adapter, f"---\nbase_model: {named}\n---\n")
    assert ("card-base-differs" in findings(report)) is differs


@pytest.mark.parametrize(
    ("card", "file", "stated", "conflict"),
    [
        ("license: apache-2.0", "", "apache-2.0", True),
        ("license: llama3.1", "", "llama3.1", False),
        ("license: other\nlicense_name: llama3.1", "", "llama3.1", False),
        ("license: [mit]", "", "mit", True),
        ("", "MIT License\n", "mit", True),
        ("", "All rights reserved.", "a text of its own", False),
        ("", "", "none", False),
        ("license: 7\nx: {", "", "none", False),
    ],
)
def test_a_licence_is_held_against_the_base(
    adapter: Path, card: str, file: str, stated: str, conflict: bool
) -> None:
    if file:
        (adapter / "LICENSE.txt").write_text(file)
    report = with_card(adapter, f"---\n{card}\n---\n")
    assert facts(report, "licence.stated") == [("adapter", stated)]
    assert ("licence-conflict" in findings(report)) is conflict


def test_a_head_that_cannot_be_read_is_said_and_the_scan_goes_on(adapter: Path) -> None:
    report = with_card(adapter, "---\na: &x [1]\nb: *x\n---\n")
    assert any(item.what == "README.md" and item.hint for item in report.coverage.skipped)
    assert report.coverage.complete


# Signatures


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ADAPTERS / "benign-signed", tmp_path / "signed"))


def test_a_signature_is_told_and_not_believed_without_a_key(signed: Path) -> None:
    report = scanned(signed)
    assert facts(report, "signature.present") == [("model.sig", "not verified")]
    assert "--verify-key" in details(report, "signature.present", "reason")[0]


def test_a_signature_verifies_with_the_key_that_made_it(signed: Path) -> None:
    report = scanned(signed, key=load_key(SIGNED / "key.pub"))
    assert facts(report, "signature.present") == [("model.sig", "verified")]
    assert "signature-verified" in findings(report)


@pytest.mark.parametrize("below", ["", "sub"])
def test_changes_after_signing_are_found_with_the_right_key_too(signed: Path, below: str) -> None:
    folder = signed
    if below:
        folder = signed.parent / "outer"
        shutil.copytree(signed, folder / below)
    at = folder / below
    (at / "run.py").write_text("pass")
    (at / "README.md").unlink()
    (at / "adapter_config.json").write_bytes(as_json(config(lora_alpha=16)))
    report = scanned(folder, key=load_key(SIGNED / "key.pub"))
    expected = {"signed-files-differ", "signed-files-absent", "signature-uncovered"}
    assert expected | {"signature-verified"} <= findings(report)
    prefix = f"{below}/" if below else ""
    assert [place for place, _ in facts(report, "signature.uncovered")] == [f"{prefix}run.py"]


def test_a_list_that_names_nothing_here_is_no_proof(signed: Path) -> None:
    bundle = json.loads((signed / "model.sig").read_bytes())
    payload = json.dumps({"subject": [], "predicateType": "x"}).encode()
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    (signed / "model.sig").write_text(json.dumps(bundle))
    report = scanned(signed, key=load_key(SIGNED / "key.pub"))
    assert facts(report, "signature.present") == [("model.sig", "does not verify")]


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff" * 3000, b"-----BEGIN PGP SIGNATURE-----"])
def test_a_signature_that_cannot_be_read_never_verifies(signed: Path, data: bytes) -> None:
    (signed / "model.sig").write_bytes(data)
    report = scanned(signed, key=load_key(SIGNED / "key.pub"))
    assert not {value for _, value in facts(report, "signature.present")} & {"verified"}
    if data:
        assert "signature-unverified" in findings(report)


def test_a_key_without_a_signature_leaves_the_scan_incomplete(adapter: Path) -> None:
    report = scanned(adapter, key=load_key(SIGNED / "key.pub"))
    assert not report.coverage.complete


def test_a_plain_adapter_gives_no_finding_of_provenance_above_info(adapter: Path) -> None:
    found = {item.name for item in scanned(adapter).evidence if item.name.startswith(NEW)}
    assert found == {"licence.stated"}
