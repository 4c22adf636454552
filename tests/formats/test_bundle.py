"""Signatures as they lie there: what they say is signed, whatever is wrong with them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from adapterscan.formats.bundle import Statement, pae, read_signature
from tests.conftest import ROOT

SIGNED = (ROOT / "fixtures" / "signed" / "model.sig").read_bytes()


def changed(change: Callable[[Any], object]) -> Statement:
    """Return the reading of the fixture's signature with its statement changed."""
    bundle = json.loads(SIGNED)
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    change(statement)
    payload = base64.b64encode(json.dumps(statement).encode()).decode()
    bundle["dsseEnvelope"]["payload"] = payload
    return read_signature(json.dumps(bundle).encode(), "model.sig")


def test_a_model_signature_lists_every_file_with_its_digest() -> None:
    found = read_signature(SIGNED, "model.sig")
    assert (found.form, found.material, found.problem) == ("model signing", "key", "")
    names = [name for name, _ in found.files]
    assert names == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert all(len(digest) == 64 for _, digest in found.files)
    assert ".gitattributes" in found.ignored
    assert not found.logged


def test_a_list_that_was_changed_contradicts_its_own_digest() -> None:
    found = changed(lambda s: s["predicate"]["resources"].pop())
    assert "contradicts itself" in found.problem


def test_digests_of_pieces_are_not_taken_for_those_of_files() -> None:
    found = changed(lambda s: s["predicate"]["serialization"].update(method="shards"))
    assert found.files == ()
    assert "whole files" in found.problem


def test_the_format_before_1_0_lists_its_subjects() -> None:
    def old(statement: Any) -> None:
        statement["predicateType"] = "https://model_signing/Digests/v0.1"
        statement["subject"] = [{"name": "a.bin", "digest": {"sha256": "AB" * 32}}]

    found = changed(old)
    assert (found.form, found.files) == ("in-toto", (("a.bin", "ab" * 32),))


def test_a_signature_of_one_file_is_about_the_file_beside_it() -> None:
    digest = base64.b64encode(b"d" * 32).decode()
    message = {
        "verificationMaterial": {"publicKey": {"hint": "x"}, "tlogEntries": [{}]},
        "messageSignature": {
            "messageDigest": {"algorithm": "SHA2_256", "digest": digest},
            "signature": base64.b64encode(b"s" * 70).decode(),
        },
    }  # fmt: skip
    found = read_signature(json.dumps(message).encode(), "sub/a.bin.sigstore.json")
    assert (found.form, found.files, found.logged) == ("one file", (("a.bin", "64" * 32),), True)
    raw = read_signature(base64.b64encode(b"s" * 70) + b"\n", "a.bin.sig")
    assert (raw.form, raw.files) == ("one file", (("a.bin", ""),))


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (b"-----BEGIN PGP SIGNATURE-----\n", "OpenPGP"),
        (b"untrusted comment: x\n", "minisign"),
        (b"-----BEGIN SSH SIGNATURE-----", "SSH"),
        (b"-----BEGIN PKCS7-----", "PKCS #7"),
    ],
)
def test_a_form_that_is_not_read_is_named(data: bytes, form: str) -> None:
    found = read_signature(data, "x.sig")
    assert found.form == form
    assert found.problem


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x00\xff" * 100, b"{}", b"[]", b"null", b'{"dsseEnvelope": 3}', b"{" * 50_000,
        b'{"dsseEnvelope": {"payload": "!", "payloadType": "x", "signatures": []}}',
        b'{"dsseEnvelope": {"payload": "e30=", "payloadType": "x", "signatures": []}}',
        b'{"dsseEnvelope": {"payload": "e30=", "payloadType": "x", "signatures": 7}}',
        b'{"messageSignature": {"messageDigest": {}}}', b'{"verificationMaterial": []}',
        b'{"verificationMaterial": {"certificate": {"rawBytes": 3}}, "dsseEnvelope": {}}',
        b"AAAA", SIGNED[:500], SIGNED.replace(b"payloadType", b"payloadtype"),
    ],
)  # fmt: skip
def test_what_is_no_signature_says_why(data: bytes) -> None:
    assert read_signature(data, "model.sig").problem


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(predicate=[]),
        lambda s: s.update(subject=[]),
        lambda s: s.update(subject=[{}, {}]),
        lambda s: s["predicate"].update(resources=[{}]),
        lambda s: s["predicate"].update(resources={"a": 1}),
        lambda s: s["predicate"]["resources"][0].update(digest="not hex"),
        lambda s: s["predicate"]["resources"][0].update(digest=7),
        lambda s: s["predicate"].update(serialization=None),
    ],
)
def test_an_odd_statement_says_why(change: Callable[[Any], object]) -> None:
    assert changed(change).problem


def test_what_is_signed_names_its_type_and_lengths() -> None:
    assert pae("a/b", b"xyz") == b"DSSEv1 3 a/b 3 xyz"
