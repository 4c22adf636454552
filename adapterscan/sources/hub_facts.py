"""What the hub says of a repository beside its files: its own scan, its age, how it is used.

Taken from the one answer that also names the commit: no request is made for it. All of it is the
hub's claim, and is reported as such.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from adapterscan.model import Evidence, Scalar, Subject
from adapterscan.sources.names import label
from adapterscan.text import printable

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

_MOST = 1_000  # files that the hub's scan is quoted for


def hub_facts(info: ModelInfo, name: str, subfolder: str) -> Iterator[Evidence]:
    """Yield `hub.repository`, and `hub.scan` for each file that the hub's own scan speaks of."""
    subject = Subject("repository", name=name)
    details: dict[str, Scalar] = {
        "modified": _day(info.last_modified), "downloads": _count(info.downloads),
        "likes": _count(info.likes), "gated": printable(str(info.gated or "no"), 20),
    }  # fmt: skip
    yield Evidence("hub.repository", subject, _day(info.created_at), "", details)
    status: Any = info.security_repo_status
    if not isinstance(status, Mapping):
        yield Evidence("hub.scan", subject, "not told")
        return
    issues = status.get("filesWithIssues")
    issues = issues if isinstance(issues, list) else []
    for item in issues[:_MOST]:
        if isinstance(item, Mapping) and isinstance(item.get("path"), str):
            level = printable(str(item.get("level", "unnamed")), 40).lower()
            path = item["path"].removeprefix(f"{subfolder}/" if subfolder else "")
            yield Evidence("hub.scan", Subject("file", label(path)), level)
    if status.get("scansDone") is not True:
        yield Evidence("hub.scan", subject, "not done")
    elif not issues:
        yield Evidence("hub.scan", subject, "no issues")


def _day(moment: object) -> str:
    return moment.date().isoformat() if isinstance(moment, datetime) else ""


def _count(number: object) -> int | None:
    return number if isinstance(number, int) and number >= 0 else None
