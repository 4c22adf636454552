"""Read an index of shards (`….index.json`): which file a loader opens for which tensors.

Source: transformers 5.23 `get_checkpoint_shard_files` joins each value of `weight_map` to the
folder of the index and opens the result; diffusers and SGLang read the same format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from adapterscan.errors import LimitExceeded, Malformed
from adapterscan.formats import strict_json
from adapterscan.formats.strict_json import Pairs

SUFFIX = ".index.json"
INDEX_LIMIT = 8 << 20
SHARDS_LIMIT = 2000  # the largest models have 200
INDEXES_LIMIT = 100  # of one target
_REPEATED = 20  # told apart


@dataclass(frozen=True, slots=True)
class WeightIndex:
    """The files that the index at `path` names, with how many tensors each is named for."""

    path: str
    shards: Mapping[str, int]
    repeated: tuple[str, ...] = ()  # tensors that it maps twice, the first of them
    odd: int = 0  # entries that are no text


def read_index(data: bytes, path: str) -> WeightIndex:
    """Parse an index. Raises Malformed for what is none, LimitExceeded for too many shards."""
    repeated: dict[str, None] = {}

    def keep_last(pairs: Pairs) -> dict[str, object]:
        result: dict[str, object] = {}
        for key, value in pairs:
            if key in result and len(repeated) < _REPEATED:
                repeated[key] = None
            result[key] = value
        return result

    raw = strict_json.parse(data, path, limit=INDEX_LIMIT, on_object=keep_last)
    table = raw.get("weight_map") if isinstance(raw, dict) else None
    if not isinstance(table, dict):
        raise Malformed(
            path, "has no weight_map that maps names to files", defect="bad-index",
            hint="loaders refuse it; ask the author for the real index",
        )  # fmt: skip
    shards = Counter(value for value in table.values() if isinstance(value, str))
    if len(shards) > SHARDS_LIMIT:
        raise LimitExceeded(
            path, f"names {len(shards):,} files, over the limit of {SHARDS_LIMIT:,}",
            hint="the largest models have 200; treat it as hostile",
        )  # fmt: skip
    odd = sum(not isinstance(value, str) for value in table.values())
    return WeightIndex(path, dict(shards), tuple(repeated), odd)
