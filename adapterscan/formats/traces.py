"""Search text for what tells of its author's machine, people, runs and data.

Cost: as `secrets`: linear, and a bounded look at a bounded number of places.
Limits: common forms only; what is common to many (`/home/user`, `/content`) is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice

PLACES = 2_000  # of one kind in one text
LONGEST = 160  # characters of one that are kept
_NOBODY = frozenset(
    "user users username you yourname your_name your-name name me ubuntu root runner jovyan "
    "ec2-user sagemaker-user shared public default admin app vscode colab kaggle researcher "
    "builder work docker node appuser someone example xxx xxxx".split()
)
_REST = r"[^\s\"'`<>|*?,;:)(\]\[{}]{0,200}"


@dataclass(frozen=True, slots=True)
class Trace:
    """Something personal in a text: what it is, and how often in it."""

    kind: str
    text: str
    times: int


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    mark: re.Pattern[str]
    shape: re.Pattern[str]
    words: tuple[str, ...]  # one of them stands in lower case in every text that has the mark
    back: int = 0


_HOSTS = r"\.(?:internal|corp|lan|intranet|local)"
_KINDS = (
    _Kind(
        "home folder", re.compile(r"(?<![\w.])/(?:home/|Users/|Volumes/|root/\w)"),
        re.compile(rf"(?P<t>(?:/home/|/Users/|/Volumes/)(?P<who>[\w.@-]{{1,40}}){_REST}"
                   rf"|/root/[\w.-]{{1,40}}{_REST})"),
        ("/home/", "/users/", "/volumes/", "/root/"),
    ),
    _Kind(
        "home folder", re.compile(r"(?i)[a-z]:[\\/]{1,4}users[\\/]"),
        re.compile(rf"(?i)(?P<t>[a-z]:[\\/]{{1,4}}users[\\/]{{1,4}}(?P<who>[^\\/\s\"']{{1,40}}){_REST})"),
        ("users",),
    ),
    _Kind(
        "folder of a machine",
        re.compile(r"(?<![\w.])/(?:mnt|data\d?|scratch|gpfs|lustre|nfs|nas|storage|cluster|export|fsx|ssd|hdd"
                   r"|projects?|work)/\w"),
        re.compile(rf"(?P<t>/\w{{2,10}}/[\w.-]{{1,60}}/{_REST})"), ("/",),
    ),
    _Kind(
        "e-mail address", re.compile("@"),
        re.compile(r".{0,64}?(?<![\w.%+/-])(?P<t>[A-Za-z0-9_.%+-]{1,64}@"
                   r"(?:[A-Za-z0-9-]{1,40}\.){1,4}[a-z]{2,12})(?![\w-])"),
        ("@",), back=64,
    ),
    _Kind(
        "internal address",
        re.compile(r"(?<![\d.])(?:10\.\d{1,3}|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d{1,3}\.\d"),
        re.compile(r"(?P<t>(?:\d{1,3}\.){3}\d{1,3}(?::\d{2,5})?)(?![\d.])"), (".",),
    ),
    _Kind(
        "internal host", re.compile(rf"{_HOSTS}\b"),
        re.compile(r".{0,80}?(?<![\w.-])(?P<t>[a-z0-9][\w-]{0,40}(?:\.[\w-]{1,40}){0,4}"
                   rf"{_HOSTS})\b(?![\w(.=])"),
        (".internal", ".corp", ".lan", ".intranet", ".local"), back=80,
    ),
    _Kind(
        "run of a tracker", re.compile(r"wandb\.ai/|app\.comet\.com/|app\.neptune\.ai/|clear\.ml/"),
        re.compile(r"(?P<t>(?:wandb\.ai|app\.comet\.com|app\.neptune\.ai|clear\.ml)/[\w.-]{1,60}/"
                   r"[\w.%-]{1,80}(?:/runs/[\w-]{1,40})?)"),
        ("wandb.ai/", "comet.com/", "neptune.ai/", "clear.ml/"),
    ),
    _Kind(
        "data set",
        re.compile(r"(?i)dataset_(?:name|path|dirs?|config)|train(?:ing)?_(?:file|data)"
                   r"|data_(?:path|files|dir)"),
        re.compile(r"\w{6,20}[\\\"']{0,3}\s{0,4}[:=]\s{0,4}[\\\"'{]{1,4}(?P<t>[^\"'\\{]{2,160})[\\\"']"),
        ("dataset_", "train", "data_"),
    ),
)  # fmt: skip


def find_traces(text: str) -> list[Trace]:
    """Return each thing that is found once, in order of kind and place."""
    counts: dict[tuple[str, str], int] = {}
    lowered = text.lower()
    for kind in _KINDS:
        if not any(word in lowered for word in kind.words):
            continue
        for place in islice(kind.mark.finditer(text), PLACES):
            start = max(0, place.start() - kind.back)
            window = (
                text[start : place.start() + 320].replace("\n", " ")
                if kind.back
                else (text[start : place.start() + 320])
            )
            match = kind.shape.match(window)
            if match is None or _is_nobody(match):
                continue
            if kind.back and not match.start("t") <= place.start() - start < match.end("t"):
                continue
            key = kind.name, match["t"][:LONGEST]
            counts[key] = counts.get(key, 0) + 1
    return [Trace(kind, found, times) for (kind, found), times in counts.items()]


def _is_nobody(match: re.Match[str]) -> bool:
    who = (match.groupdict().get("who") or "").lower()
    return who in _NOBODY or match["t"].lower().endswith(("@example.com", "@example.org"))
