"""Read detached signatures: what they say is signed, and with what; nothing is verified here.

Sources: the OpenSSF model signing specification 1.0 (an in-toto statement with the digest of each
file, in a DSSE envelope, in a Sigstore bundle), its 0.2 predecessor, and plain signatures of one
file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adapterscan.errors import FileProblem
from adapterscan.formats import strict_json
from adapterscan.text import printable

LIMIT = 4 << 20
_MOST = 50_000  # files in a statement
_MODEL_SIGNING = "https://model_signing/signature/v1.0"
_FORMS = (
    (b"-----BEGIN PGP", "OpenPGP"),
    (b"untrusted comment:", "minisign"),
    (b"-----BEGIN SSH SIGNATURE", "SSH"),
    (b"-----BEGIN PKCS7", "PKCS #7"),
)


@dataclass(frozen=True, slots=True)
class Statement:
    """What a signature says was signed.

    `form`: `model signing`, `in-toto`, `one file`, or the name of a form that is not read.
    `files`: name and SHA-256 of each. `ignored`: names that the signer left out. `material`: `key`,
    `certificate` or "". `hint`: of the key. `certificate`: in DER. `problem`: why it says nothing.
    `signed`: the very bytes under the signature, None where these are a file's.
    """

    path: str
    form: str
    files: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    material: str = ""
    hint: str = ""
    certificate: bytes = b""
    signatures: tuple[bytes, ...] = ()
    signed: bytes | None = None
    legacy: bytes = b""  # what releases before 1.0 put under the signature instead
    logged: bool = False  # a transparency log knows it
    problem: str = ""


def read_signature(data: bytes, path: str) -> Statement:
    """Return what the signature in `data` says. Never raises: see `Statement.problem`."""
    for mark, form in _FORMS:
        if data.lstrip().startswith(mark):
            return Statement(path, form, problem=f"{form} signatures are not read here")
    raw = _base64("".join(data[:8192].decode("latin-1").split()))
    if raw is not None and 40 <= len(raw) <= 1024:
        return Statement(path, "one file", ((_subject(path), ""),), signatures=(raw,))
    try:
        bundle = strict_json.parse(data, path, limit=LIMIT)
        return _bundle(bundle, path)
    except FileProblem as problem:
        return Statement(path, "unknown", problem=problem.reason)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = printable(str(error), 80)
        return Statement(path, "sigstore bundle", problem=f"is no bundle that we know ({why})")


def pae(kind: str, payload: bytes) -> bytes:
    """Return what a DSSE signature is over (its "pre-authentication encoding")."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)


def _bundle(bundle: Mapping[str, Any], path: str) -> Statement:
    material, hint, certificate, logged = _material(bundle.get("verificationMaterial") or {})
    if "messageSignature" in bundle:
        message = bundle["messageSignature"]
        digest = _need(message["messageDigest"]["digest"]).hex()
        return Statement(
            path, "one file", ((_subject(path), digest),), material=material, hint=hint,
            certificate=certificate, signatures=(_need(message["signature"]),), logged=logged,
        )  # fmt: skip
    envelope = bundle["dsseEnvelope"]
    payload, kind = _need(envelope["payload"]), str(envelope["payloadType"])
    statement = strict_json.parse(payload, path, limit=LIMIT)
    form = "in-toto"
    files, problem = tuple(_subjects(statement)), ""
    ignored: tuple[str, ...] = ()
    if statement.get("predicateType") == _MODEL_SIGNING:
        form, predicate = "model signing", statement["predicate"]
        method = predicate["serialization"].get("method")
        ignored = tuple(str(name) for name in predicate["serialization"].get("ignore_paths") or ())
        resources = predicate["resources"][: _MOST + 1]
        plain = method == "files" and all(item["algorithm"] == "sha256" for item in resources)
        files = (
            tuple((str(i["name"]), str(i["digest"]).lower()) for i in resources) if plain else ()
        )
        problem = _inconsistent(statement, resources) or (
            "" if plain else "gives digests that are not the SHA-256 of whole files"
        )
    if len(files) > _MOST:
        problem = f"names more than {_MOST:,} files"
    return Statement(
        path, form, files[:_MOST], ignored, material, hint, certificate,
        tuple(_need(item["sig"]) for item in envelope["signatures"][:16]),
        pae(kind, payload), _legacy_pae(kind, payload), logged, problem,
    )  # fmt: skip


def _subjects(statement: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for subject in statement["subject"][: _MOST + 1]:
        digest = subject["digest"].get("sha256")
        if isinstance(digest, str):
            yield str(subject["name"]), digest.lower()


def _inconsistent(statement: Mapping[str, Any], resources: list[Mapping[str, Any]]) -> str:
    """Return why a statement contradicts itself, "" where it does not."""
    (subject,) = statement["subject"]
    root = hashlib.sha256(b"".join(bytes.fromhex(item["digest"]) for item in resources))
    if root.hexdigest() == str(subject["digest"]["sha256"]).lower():
        return ""
    return "contradicts itself: the digest of the whole is not that of its files"


def _material(found: Mapping[str, Any]) -> tuple[str, str, bytes, bool]:
    logged = bool(found.get("tlogEntries"))
    if "publicKey" in found:
        return "key", printable(str((found["publicKey"] or {}).get("hint", "")), 80), b"", logged
    if "certificate" in found:
        return "certificate", "", _need(found["certificate"]["rawBytes"]), logged
    if "x509CertificateChain" in found:
        chain = found["x509CertificateChain"]["certificates"]
        return "certificate", "", _need(chain[0]["rawBytes"]), logged
    return "", "", b"", logged


def _legacy_pae(kind: str, payload: bytes) -> bytes:
    """Return what model-signing 0.x signed: text with the bytes as Python writes them."""
    return f"DSSEV1 {len(kind)} {kind} {len(payload)} {payload!r}".encode()


def _subject(path: str) -> str:
    """Return the name of the file that a signature of one file lies beside."""
    name = path.rpartition("/")[2]
    for ending in (".sigstore.json", ".sigstore", ".sig", ".bundle"):
        name = name.removesuffix(ending)
    return name


def _need(text: object) -> bytes:
    raw = _base64(text) if isinstance(text, str) else None
    if raw is None:
        raise ValueError("a field that is no base64")
    return raw


def _base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
