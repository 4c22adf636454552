"""A digest of what a chat template does: the same for another layout, or quotes."""

from __future__ import annotations

import hashlib
from typing import Any

from jinja2 import nodes

_LAYOUT = ("lineno", "environment", "ctx")


def shape_of(parsed: nodes.Template) -> bytes:
    """Return the digest of a tree. Raises RecursionError for one that is too deep."""
    digest = hashlib.blake2b(digest_size=32)
    _add(digest, parsed)
    return digest.digest()


def _add(digest: hashlib.blake2b, value: Any) -> None:
    match value:
        case nodes.TemplateData(data=text):
            _add(digest, ("text", " ".join(text.split())))
        case nodes.Getattr(node=inner, attr=name):
            _add(digest, ("item", inner, name))
        case nodes.Getitem(node=inner, arg=nodes.Const(value=str(name))):
            _add(digest, ("item", inner, name))
        case nodes.Node():
            digest.update(type(value).__name__.encode() + b"(")
            for name, inner in value.iter_fields(exclude=_LAYOUT):
                digest.update(name.encode() + b"=")
                _add(digest, inner)
            digest.update(b")")
        case list() | tuple():
            digest.update(b"%d[" % len(value))
            for item in value:
                _add(digest, item)
            digest.update(b"]")
        case _:
            raw = repr(value).encode("utf-8", "replace")
            digest.update(b"%d:" % len(raw) + raw)
