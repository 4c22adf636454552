"""A signature is verified with a key that the caller has; a forged one never is."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from adapterscan.errors import BadConfig
from adapterscan.formats.bundle import pae, read_signature
from adapterscan.provenance.signing import load_key, verifies
from tests.conftest import ROOT

SIGNED = ROOT / "fixtures" / "signed"
KIND = "application/vnd.in-toto+json"
HASHES = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}


def saved(path: Path, public: object) -> Path:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(public.public_bytes(serialization.Encoding.PEM, form))
    return path


def envelope(payload: bytes, *signatures: bytes) -> bytes:
    found = [{"sig": base64.b64encode(item).decode()} for item in signatures]
    body = {"payload": base64.b64encode(payload).decode(), "payloadType": KIND}
    return json.dumps({"dsseEnvelope": {**body, "signatures": found}}).encode()


PAYLOAD = json.dumps({"subject": [{"name": "a", "digest": {"sha256": "ab" * 32}}]}).encode()


def test_what_the_reference_tool_signed_verifies_with_its_key() -> None:
    key = load_key(SIGNED / "key.pub")
    statement = read_signature((SIGNED / "model.sig").read_bytes(), "model.sig")
    assert statement.hint == key.fingerprint
    assert verifies(statement, key, lambda _: "")


def test_it_does_not_once_a_byte_of_the_list_is_changed() -> None:
    bundle = json.loads((SIGNED / "model.sig").read_bytes())
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b"README", b"readme")
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    statement = read_signature(json.dumps(bundle).encode(), "model.sig")
    assert not verifies(statement, load_key(SIGNED / "key.pub"), lambda _: "")


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_each_curve_goes_with_its_hash(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    private = ec.generate_private_key(curve)
    good = private.sign(pae(KIND, PAYLOAD), ec.ECDSA(HASHES[curve.key_size]))
    key = load_key(saved(tmp_path / "key", private.public_key()))
    assert verifies(read_signature(envelope(PAYLOAD, good), "a.sig"), key, lambda _: "")
    assert verifies(read_signature(envelope(PAYLOAD, b"x", good), "a.sig"), key, lambda _: "")
    other = load_key(saved(tmp_path / "other", ec.generate_private_key(curve).public_key()))
    assert not verifies(read_signature(envelope(PAYLOAD, good), "a.sig"), other, lambda _: "")
    assert not verifies(read_signature(envelope(PAYLOAD), "a.sig"), key, lambda _: "")


def test_ed25519_signs_statements(tmp_path: Path) -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    key = load_key(saved(tmp_path / "key", private.public_key()))
    good = read_signature(envelope(PAYLOAD, private.sign(pae(KIND, PAYLOAD))), "a.sig")
    assert verifies(good, key, lambda _: "")
    bad = read_signature(envelope(PAYLOAD, private.sign(PAYLOAD)), "a.sig")
    assert not verifies(bad, key, lambda _: "")


def test_a_plain_signature_is_over_the_file_that_was_hashed(tmp_path: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    key = load_key(saved(tmp_path / "key", private.public_key()))
    raw = base64.b64encode(private.sign(b"content", ec.ECDSA(hashes.SHA256())))
    statement = read_signature(raw, "a.bin.sig")
    assert verifies(statement, key, lambda _: hashlib.sha256(b"content").hexdigest())
    assert not verifies(statement, key, lambda _: hashlib.sha256(b"other").hexdigest())
    assert not verifies(statement, key, lambda _: "")


def test_a_key_that_cannot_be_used_is_refused_with_a_next_step(tmp_path: Path) -> None:
    short = tmp_path / "text"
    short.write_text("no key")
    kind = saved(tmp_path / "rsa", rsa.generate_private_key(65537, 2048).public_key())
    curve = saved(tmp_path / "k1", ec.generate_private_key(ec.SECP256K1()).public_key())
    for path in (tmp_path / "none", short, kind, curve):
        with pytest.raises(BadConfig) as caught:
            load_key(path)
        assert caught.value.hint
