"""Say whether the base that was given is called as the adapter's config calls its base.

Bases of one family have the same shapes, so that an adapter that is measured on another than its
own looks complete. Source: `static/base_model.py` on how a base can be named.
Limits: a name is no proof, neither that two are the same nor that they are not: copies, mirrors and
renamed folders have others. The revision is not compared, and a config that names none is passed
over. Where only answers are compared (a server, a base whose weights cannot be read), nothing is
said.
"""

from __future__ import annotations

from collections.abc import Iterator

from adapterscan.detectors.static.base_model import same_name
from adapterscan.formats.config import AdapterConfig
from adapterscan.model import Evidence, Subject
from adapterscan.text import printable


def named(config: AdapterConfig, given: str) -> Iterator[Evidence]:
    """Yield `base.name`, "same" or "other", where the config names a base."""
    text = (config.base_model or "").strip()
    if not text:
        return
    yield Evidence(
        "base.name",
        Subject("field", config.path, "base_model_name_or_path"),
        "same" if same_name(text, given) else "other",
        details={"named": printable(text), "given": printable(given)},
    )
