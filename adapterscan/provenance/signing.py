"""Verify a detached signature with a key that the caller trusts: offline, over our own digests.

What is under the signature is a list of digests; whether the files have them is compared with the
hashes of the very bytes that were scanned, so nothing is read twice.
Limits: elliptic-curve and Ed25519 keys, as a public key or as the signer's own certificate. Chains
to a certificate authority and keyless identities need a trust store: the tool `model_signing` has
them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterscan.errors import BadConfig
from adapterscan.formats.bundle import Statement

_LIMIT = 64 << 10
EXTRA = "pip install 'adapterscan[signing]'"


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, and how reports call it."""

    name: str
    fingerprint: str  # SHA-256 of its PEM, which model signatures carry as a hint
    public: Any


def load_key(path: Path) -> Key:
    """Return the key in a PEM file, or that of the certificate in it.

    Raises BadConfig where there is none that is used for signatures, or `cryptography` is missing.
    """
    try:
        from cryptography import x509
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    except ImportError as error:
        hint = f"install what verifies them: {EXTRA}"
        raise BadConfig("--verify-key needs the extra `signing`", hint=hint) from error
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT)
    except OSError as error:
        reason = f"the key {path} cannot be read ({error.strerror})"
        raise BadConfig(reason, hint="check --verify-key") from error
    hint = "give a public key in PEM, on a curve of 256, 384 or 521 bits, or a certificate"
    try:
        if b"-----BEGIN CERTIFICATE-----" in data:
            public: Any = x509.load_pem_x509_certificate(data).public_key()
        else:
            public = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadConfig(f"{path} holds no public key", hint=hint) from error
    curves = isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in _CURVES
    if not curves and not isinstance(public, ed25519.Ed25519PublicKey):
        raise BadConfig(f"{path} holds a key of another kind", hint=hint)
    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    digest = hashes.Hash(hashes.SHA256())
    digest.update(pem)
    return Key(str(path), digest.finalize().hex(), public)


_CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})
#: The hash that goes with a curve, by its bits.
_HASHES = {256: "SHA256", 384: "SHA384", 521: "SHA512"}


def verifies(statement: Statement, key: Key, sha256_of: Callable[[str], str]) -> bool:
    """Return whether one of the signatures is by `key`.

    `sha256_of` gives the digest of the file that a signature of one file is over, "" if unknown.
    """
    if statement.signed is None:
        digest = sha256_of(statement.files[0][0])
        return any(_is_over_file(key, item, digest) for item in statement.signatures)
    return any(
        _is_by(key, item, message)
        for item in statement.signatures
        for message in (statement.signed, statement.legacy)
        if message
    )


def _is_by(key: Key, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        if isinstance(key.public, ec.EllipticCurvePublicKey):
            algorithm = getattr(hashes, _HASHES[key.public.curve.key_size])()
            key.public.verify(signature, message, ec.ECDSA(algorithm))
        else:
            key.public.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _is_over_file(key: Key, signature: bytes, digest: str) -> bool:
    """Return whether `signature` is over a file of that SHA-256. Ed25519 would need its bytes."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    if not digest or not isinstance(key.public, ec.EllipticCurvePublicKey):
        return False
    try:
        hashed = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
        key.public.verify(signature, bytes.fromhex(digest), hashed)
    except InvalidSignature:
        return False
    return True
