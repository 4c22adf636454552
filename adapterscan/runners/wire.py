"""How a question and its answer travel between us and the process that runs the model: JSON lines.

Never pickles: what answers has read files from a stranger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from adapterscan.runner import (
    Chain,
    Choice,
    Contrast,
    Facts,
    Ids,
    ReadOut,
    Removal,
    Side,
    Told,
    Trace,
    Turn,
)


def facts(found: Mapping[str, Any]) -> Facts:
    """Return facts as they were."""
    lists = {key: tuple(value) for key, value in found.items() if isinstance(value, list)}
    return Facts(**{**found, **lists})


def _ids(found: Sequence[Sequence[int]]) -> list[Ids]:
    return [tuple(row) for row in found]


def _scores(found: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
    return [tuple(row) for row in found]


def _outputs(found: Sequence[Sequence[Sequence[float]]]) -> list[tuple[tuple[float, ...], ...]]:
    return [tuple(tuple(labels) for labels in row) for row in found]


def _contrasts(found: Sequence[Mapping[str, Any]]) -> list[Contrast]:
    return [
        Contrast(
            tuple(Choice(**choice) for choice in item["likely"]),
            tuple(Choice(**choice) for choice in item["lifted"]),
            item["divergence"],
            item["base_agreement"],
        )
        for item in found
    ]


def _chains(found: Sequence[Mapping[str, Any]]) -> list[Chain]:
    return [
        Chain(tuple(item["tokens"]), tuple(item["adapter"]), tuple(item["base"])) for item in found
    ]


def _read_out(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> ReadOut:
    return ReadOut(
        **{kind: tuple(Trace(**item) for item in items) for kind, items in found.items()}
    )


#: What turns the JSON of each method's answer into what the method returns.
ANSWERS: Mapping[str, Callable[[Any], Any]] = {
    "encode": _ids,
    "tokenize": _ids,
    "decode": list,
    "contrast": _contrasts,
    "score": _scores,
    "roll": _chains,
    "promising": list,
    "read_out": _read_out,
    "heed": list,
    "removals": lambda found: [Removal(**item) for item in found],
    "directions": lambda found: Told(tuple(found["layers"]), found["vectors"]),
    "stir": _scores,
    "generate": _ids,
    "logits": _outputs,
    "leaning": list,
}


def arguments(method: str, given: Sequence[Any]) -> list[Any]:
    """Return a method's arguments as it takes them, from what JSON made of them."""
    match method:
        case "encode":
            return [[[Turn(**turn) for turn in conversation] for conversation in given[0]]]
        case "tokenize":
            return [list(given[0])]
        case "decode":
            return [_ids(given[0])]
        case "contrast":
            return [_ids(given[0]), _tails(given[1]), given[2]]
        case "score":
            return [Side(given[0]), _ids(given[1]), _tails(given[2]), tuple(given[3])]
        case "roll":
            return [_ids(given[0]), _ids(given[1]), given[2]]
        case "promising":
            return [_ids(given[0]), _ids(given[1]), tuple(given[2]), given[3]]
        case "read_out":
            return [tuple(given[0]), given[1]]
        case "heed":
            return [tuple(given[0]), _ids(given[1]), given[2]]
        case "removals" | "directions":
            return [_ids(given[0]), [(one, two) for one, two in given[1]]]
        case "stir":
            return [_ids(given[0]), _tails(given[1]), _ids(given[2])]
        case "generate":
            return [Side(given[0]), _ids(given[1]), *given[2:]]
        case "logits":
            return [Side(given[0]), _ids(given[1]), _tails(given[2])]
        case "leaning":
            return [_ids(given[0]), _ids(given[1]), tuple(given[2]), given[3]]
    raise KeyError(method)


def _tails(found: Sequence[Sequence[Sequence[int]]]) -> list[list[Ids]]:
    return [_ids(row) for row in found]
