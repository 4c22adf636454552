"""Compare two trees of JSON as a loader would: what is not there counts as its default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_SHOWN = 200  # characters
#: Defaults of tokenizers 0.23 that are not nothing.
_DEFAULTS: Mapping[str, object] = {
    "use_regex": True, "trim_offsets": True, "split": True, "prepend_scheme": "always",
    "add_prefix_space": True, "cleanup": True, "str_rep": "▁",
}  # fmt: skip
_CHAINS = ("normalizers", "pretokenizers", "processors", "decoders")
#: Fields that say the same in another way, or are no longer read.
_PASSED = frozenset({"str_rep", "add_prefix_space"})


def differences_in(here: object, there: object, place: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (place, here, there) of each leaf that differs. Readers bound how deep trees are."""
    here, there = _alone(here), _alone(there)
    match here, there:
        case Mapping(), Mapping():
            metaspace = {here.get("type"), there.get("type")} == {"Metaspace"}
            for key in sorted({*here, *there}, key=str):
                if metaspace and key in _PASSED and not (key in here and key in there):
                    continue
                default = _DEFAULTS.get(str(key))
                left, right = here.get(key, default), there.get(key, default)
                yield from differences_in(left, right, f"{place}.{key}")
        case list(), list():
            for at in range(max(len(here), len(there))):
                left = here[at] if at < len(here) else None
                right = there[at] if at < len(there) else None
                yield from differences_in(left, right, f"{place}[{at}]")
        case _ if (here or None) != (there or None):
            yield place, _shown(here), _shown(there)


def _alone(tree: object) -> object:
    """Return a chain of one step as that step, and an empty one as nothing."""
    while isinstance(tree, Mapping):
        chain = next((tree[name] for name in _CHAINS if isinstance(tree.get(name), list)), None)
        if chain is None or len(chain) > 1:
            return tree
        tree = chain[0] if chain else None
    return tree


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{key}: {_shown(item)}" for key, item in list(value.items())[:8])
        return f"{{{inner}}}"[:_SHOWN]
    if isinstance(value, list):
        return f"[{', '.join(_shown(item) for item in value[:8])}]"[:_SHOWN]
    return "nothing" if value is None else str(value)[:_SHOWN]
