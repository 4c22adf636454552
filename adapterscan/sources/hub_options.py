"""How to talk to a hub. Apart from `hub`, whose import local scans do not need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_MAX_DOWNLOAD = 5_000_000_000


@dataclass(frozen=True, slots=True)
class HubOptions:
    """How to talk to a hub. None means: what the hub client itself would do."""

    endpoint: str | None = None
    offline: bool = False  # use the client's cache only
    max_download: int = DEFAULT_MAX_DOWNLOAD  # bytes of one artifact
    progress: bool = False
    token: str | bool | None = None  # False: send none
    cache_dir: Path | None = None
    storage: tuple[str, ...] = ()  # other hosts that the hub may send us to for files
    patience: float = 60.0  # seconds of waiting in total when the hub asks to slow down
    timeout: float = 30.0  # seconds without an answer where the client would wait for ever
