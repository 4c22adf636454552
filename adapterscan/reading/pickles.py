"""Find and follow every pickle in a file; what was not followed to its end is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterscan.errors import (
    Unsupported,
)
from adapterscan.model import (
    Evidence,
    File,
    FileKind,
    Skipped,
)
from adapterscan.reading.contents import Contents, article

if TYPE_CHECKING:
    from adapterscan.formats.pickle_file import NamedSource, PickleFile
    from adapterscan.formats.pickle_policy import Purpose


#: What a file that its loaders unpickle may be without holding a pickle.
_PLAIN = frozenset({"npy", "empty", "text"})
#: Facts that mean that part of a file of pickles was not seen.
_UNSEEN = frozenset(
    {
        "too_large",
        "unreadable_container",
        "nested_too_deep",
        "compression_method",
        "bad_compression",
        "trailing_bytes",
    }
)


def find_pickles_in(
    contents: Contents, file: File, source: NamedSource
) -> tuple[PickleFile, tuple[Evidence, ...]]:
    """Follow every pickle in the file and keep its facts; what was not followed is Skipped.

    Raises Unreadable or ChangedWhileReading, after that, when bytes could not be had.
    """
    # imported when wanted: most adapters hold no pickles
    from adapterscan.formats.pickle_facts import pickle_facts
    from adapterscan.formats.pickle_file import find_pickles

    purpose: Purpose = "weights" if file.kind is FileKind.WEIGHTS else "trainer"
    found = find_pickles(source)
    facts = pickle_facts(found, purpose)
    contents.papers.take_pickles(file.path, found)
    contents.evidence.extend(facts)
    contents.skipped.extend(_unfollowed(file, facts))
    if found.problem is not None:
        raise found.problem
    return found, facts


def require_pickles(
    file: File, container: str, found: PickleFile, facts: tuple[Evidence, ...]
) -> None:
    if not found.streams and not facts and container not in _PLAIN:
        raise Unsupported(
            file.path, f"is unpickled by its loaders, but {article(container)} holds no "
            "pickle that we know", hint="do not load it: what it holds was not analysed",
        )  # fmt: skip


def _unfollowed(file: File, facts: tuple[Evidence, ...]) -> list[Skipped]:
    """A pickle that was not followed to its end must not pass for one that was."""
    reasons = {
        str(fact.value)
        for fact in facts
        if fact.name == "pickle.broken"
        or (fact.name == "archive.defect" and fact.value in _UNSEEN)
        or fact.name == "pickle.globals_untold"
    }
    if not reasons:
        return []
    text = ", ".join(sorted(reasons)).replace("_", " ")
    return [
        Skipped(
            file.path, f"could not be followed to the end of its pickles ({text})",
            failed=file.kind not in (FileKind.OTHER, FileKind.UNKNOWN),
            hint="what was seen before that is in this report; do not unpickle it",
            detector="reading",
        )
    ]  # fmt: skip
