"""Compare the files with the digests that a signature lists, and verify it where a key is given.

Source: OpenSSF model signing 1.0, Sigstore bundles. The comparison alone proves that files and
signature belong together, and not who signed: anybody can sign again what he changed.
Limits: keyless signatures and chains of certificates are told and not verified; names that the
signer left out are believed only as far as the signature is.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping

from adapterscan.detectors.detector import Detector
from adapterscan.formats.bundle import Statement, read_signature
from adapterscan.model import Evidence, FileKind, Need, Scalar, Subject
from adapterscan.provenance.papers import is_signature
from adapterscan.provenance.signing import EXTRA, verifies
from adapterscan.reading import Contents
from adapterscan.text import printable

_LOADED = frozenset(
    {FileKind.CONFIG, FileKind.WEIGHTS, FileKind.PICKLE, FileKind.TOKENIZER, FileKind.CODE}
)


def run(contents: Contents) -> Iterator[Evidence]:
    """Yield `signature.present`, `signature.differs` and `signature.uncovered`."""
    digests = {record.path: record.sha256 or "" for record in contents.records}
    for path, data in contents.papers.papers.items():
        if not is_signature(path):
            continue
        statement = read_signature(data, path)
        signed = _places(statement, digests)
        yield _present(contents, statement, signed, digests)
        for place, digest in signed.items():
            if digest and (fact := _compared(path, place, digest, digests)) is not None:
                yield fact
        if statement.form == "model signing" and signed:
            yield from _uncovered(contents, statement, set(signed))


def _places(statement: Statement, digests: Mapping[str, str]) -> dict[str, str]:
    """Return the digests by path in the artifact: names count from where the signature lies, or
    from the top where nothing of that name lies there."""
    folder = posixpath.dirname(statement.path)
    found = {posixpath.normpath(posixpath.join(folder, n)): d for n, d in statement.files}
    if folder and not any(place in digests for place in found):
        return {posixpath.normpath(name): digest for name, digest in statement.files}
    return found


def _present(
    contents: Contents, statement: Statement, signed: Mapping[str, str], digests: Mapping[str, str]
) -> Evidence:
    state, reason = "not verified", ""
    key = contents.key
    if statement.problem and not statement.signatures:
        state, reason = "unreadable", statement.problem
    elif key is None:
        reason = _why_not(statement)
    elif verifies(statement, key, lambda _: digests.get(next(iter(signed), ""), "")):
        state = "verified"
    else:
        state, reason = "does not verify", f"it is not by the key {printable(key.name, 80)}"
        if statement.hint and statement.hint != key.fingerprint:
            reason += ", and names another"
    if state == "verified" and statement.problem:
        state, reason = "does not verify", statement.problem
    details: dict[str, Scalar] = {
        "form": statement.form, "material": statement.material, "files": len(statement.files),
        "reason": reason, "key": printable(key.name, 80) if key else "", "logged": statement.logged,
    }  # fmt: skip
    return Evidence("signature.present", Subject("file", statement.path), state, "", details)


def _why_not(statement: Statement) -> str:
    if statement.problem:
        return statement.problem
    if statement.logged:
        return "it is by an identity, not by a key; `model_signing verify sigstore` checks those"
    return f"no key was given to verify it with: --verify-key FILE ({EXTRA})"


def _compared(path: str, place: str, digest: str, digests: Mapping[str, str]) -> Evidence | None:
    """Return what differs between a file and what was signed; None where nothing does."""
    found = digests.get(place)
    if found == digest:
        return None
    state = "other content" if found else "not hashed" if found == "" else "not here"
    details = {"state": state, "signed": printable(digest, 64), "signature": path}
    return Evidence("signature.differs", Subject("file", place), found or "", "", details)


def _uncovered(contents: Contents, statement: Statement, signed: set[str]) -> Iterator[Evidence]:
    folder = posixpath.dirname(statement.path)
    ignored = {posixpath.normpath(posixpath.join(folder, name)) for name in statement.ignored}
    for file in contents.artifact.files:
        inside = not folder or file.path.startswith(f"{folder}/")
        if file.kind not in _LOADED or file.path in signed or not inside:
            continue
        left_out = any(file.path == name or file.path.startswith(f"{name}/") for name in ignored)
        details: dict[str, Scalar] = {"signature": statement.path, "left_out": left_out}
        subject = Subject("file", file.path)
        yield Evidence("signature.uncovered", subject, file.kind.value, "", details)


DETECTOR = Detector(
    "signatures", 1, frozenset({Need.FILES}), "signatures against the files", run,
    takes=lambda contents, _: [path for path in contents.papers.papers if is_signature(path)],
)  # fmt: skip
