"""Bring an artifact here, from a folder, a file or the hub, at one fixed state."""

from __future__ import annotations

from adapterscan.model import Artifact, Ref, SourceKind
from adapterscan.sources.hub_options import HubOptions
from adapterscan.sources.kinds import file_kind
from adapterscan.sources.local import open_file, open_folder
from adapterscan.sources.refs import parse_ref

__all__ = [
    "HubOptions",
    "file_kind",
    "open_artifact",
    "open_file",
    "open_folder",
    "parse_ref",
]


def open_artifact(ref: Ref, hub_options: HubOptions) -> Artifact:
    """Return the artifact that `ref` points at. Raises SourceError or UsageError."""
    match ref.kind:
        case SourceKind.HUB:
            from adapterscan.sources.hub import open_hub  # 20 ms that local scans do not need

            return open_hub(ref, hub_options)
        case SourceKind.FOLDER:
            return open_folder(ref)
        case SourceKind.FILE:
            return open_file(ref)
