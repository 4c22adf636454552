"""Compare the names of the repository and of its base with names that people trust.

Sources: typosquats of organisations on model hubs; Unicode TR39. How names are compared, and the
rate of honest ones that resemble another, is in `docs/provenance.md`.
Limits: names that are listed. An owner who resembles nobody is told apart by nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator

from adapterscan.detectors.detector import Detector
from adapterscan.detectors.provenance.cards import texts_of
from adapterscan.detectors.static.base_model import is_hub_id
from adapterscan.errors import LimitExceeded
from adapterscan.model import Evidence, Need, Scalar, Subject
from adapterscan.provenance.lookalikes import like_id, like_model, like_owner, same_model
from adapterscan.reading import Contents
from adapterscan.text import printable

_FIELDS = ("base_model_name_or_path", "tokenizer_name_or_path")
_LONGEST = 512
_MOST = 2_000  # names that are compared; each takes about a millisecond
_HINT = "an adapter names a base; scan the folders one by one"


def run(contents: Contents) -> Iterator[Evidence]:
    """Yield `name.lookalike` of the owner and of bases, and `base.republished`."""
    for name in contents.artifact.own_names:
        owner, slash, _ = name.partition("/")
        if not slash or not owner or not is_hub_id(name):
            continue
        if (alike := like_owner(owner)) is not None:
            subject = Subject("repository", name=printable(name))
            yield _lookalike(subject, "owner", owner, alike.known, alike.how, "")
    seen: set[str] = set()
    for subject, part, text in _references(contents):
        name = _id(text)
        seen.add(name)
        if len(seen) > _MOST:
            raise LimitExceeded(
                subject.file, f"names with other files more than {_MOST:,} models", hint=_HINT
            )
        bare = name.rpartition("/")[2]
        if not bare.isascii() and like_id(name) is None and (same := like_model(bare)):
            yield _lookalike(subject, part, name, same.known, same.how, "")
        elif (found := like_id(name)) is not None:
            by = found.owner
            yield _lookalike(subject, part, name, by.known, by.how, found.model)
        elif original := same_model(name):
            details: dict[str, Scalar] = {"text": printable(name), "part": part}
            yield Evidence("base.republished", subject, original, "", details)


def _references(contents: Contents) -> Iterator[tuple[Subject, str, str]]:
    """Yield where a base or tokenizer is named, which of both, and how it is called there."""
    for config in contents.configs.values():
        for field in _FIELDS:
            text = config.raw.get(field)
            if isinstance(text, str):
                part = "base" if field.startswith("base") else "tokenizer"
                yield Subject("field", config.path, field), part, text
        adapters = config.raw.get("adapters")
        if isinstance(adapters, dict):
            for key, text in list(adapters.items())[:100]:
                if isinstance(text, str):
                    yield (
                        Subject("field", config.path, f"adapters[{printable(str(key))}]"),
                        "adapter",
                        text,
                    )
    for path in contents.papers.cards.values():
        for text in texts_of(contents.papers.head(path).get("base_model")):
            yield Subject("field", path, "base_model"), "base", text


def _id(text: str) -> str:
    """Return the `owner/name` that a reference is about, whatever stands around it."""
    text = text[:_LONGEST].strip().partition("@")[0]
    scheme, _, rest = text.rpartition("://")
    if scheme.lower() in ("http", "https") or rest.startswith(("huggingface.co/", "hf.co/")):
        rest = rest.partition("/")[2]
    parts = rest.rstrip("/").split("/")
    return "/".join(parts[:2]) if parts[0] not in (".", "..", "~", "") else ""


def _lookalike(
    subject: Subject, part: str, name: str, known: str, how: str, model: str
) -> Evidence:
    details: dict[str, Scalar] = {
        "part": part, "name": _plain(name), "how": how, "model": model,
    }  # fmt: skip
    return Evidence("name.lookalike", subject, known, "", details)


def _plain(name: str) -> str:
    """Return a name with every letter escaped that is not ASCII: those that look alike."""
    return printable(name.encode("ascii", "backslashreplace").decode("ascii"))


DETECTOR = Detector("names", 1, frozenset({Need.FILES}), "names against those of known owners", run)
