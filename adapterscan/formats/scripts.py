"""Find in the text of scripts, notebooks and YAML what runs commands or code from elsewhere.

Text is matched by fixed patterns with bounded repetition; nothing is parsed as Python, whose own
parser can be made to crash. Letters are normalised first, as Python does with identifiers, so that
`𝚎𝚡𝚎𝚌` counts as `exec`.
Limits: a list of what is usual. Code that builds its names (`getattr(os, 'sys' + 'tem')`) shows as
that or not at all, and what a called module does is not followed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from adapterscan.errors import FileProblem
from adapterscan.formats import strict_json
from adapterscan.formats.programs import program
from adapterscan.formats.reader import SourceFile
from adapterscan.model import Evidence, Scalar, Subject
from adapterscan.text import printable

TEXT_LIMIT = 256 << 10  # bytes of a script, or of a notebook's code; of more the beginning is read
TEXTS_LIMIT = 4 << 20  # of all in a target together
NOTEBOOK_LIMIT = 8 << 20  # outputs weigh more than code
UNREAD = "more than is read"
_HEAD = 1024
_SHOWN = 160
_YAML = (".yaml", ".yml")

_FETCH = r"(?:curl|wget|fetch|invoke-webrequest|iwr|invoke-restmethod|irm)\b"
_SHELL = (
    r"(?:(?:ba|z|da|k|fi|c)?sh|python\d?(?:\.\d+)?|perl|ruby|node|iex|invoke-expression|source)\b"
)
_RUN = (
    r"(?<![.\w])(?:exec|eval)\s{0,4}\("  # what was fetched or decoded before; `model.eval()` is not
)
#: (construct, what it begins with, what must follow within WINDOW characters). No pattern repeats
#: more than forty characters: hostile text takes no longer than honest text.
_PATTERNS: tuple[tuple[str, str, str], ...] = (
    ("download and run", rf"\b{_FETCH}", rf"(?:\||&&|;|\$\(|\n)[^\n]{{0,40}}?\b{_SHELL}"),
    ("download and run", rf"\b(?:{_SHELL}|eval\b)", rf"(?:\$\(|`|<\()[^\n]{{0,40}}?{_FETCH}"),
    ("download and run", r"\b(?:exec|eval)\b", r"\b(?:urlopen|urlretrieve|requests|httpx)\b"),
    ("download and run", r"\b(?:urlopen|urlretrieve|requests\.get|httpx\.get)\b", _RUN),
    ("download and run", rf"\b{_FETCH}", r"(?:&&|;|\n)[^\n]{0,40}?(?:\bchmod\s\+x|\s\./\w)"),
    ("decoded code", r"b(?:64|85|32|16)decode\b|a85decode|unhexlify|\bfromhex\b", _RUN),
    ("shell", r"\bfrom\s{1,4}os\s{1,4}import\b",
     r"\A[^\n]{0,80}?\b(?:system|popen|exec[lv]|spawn)"),
    ("download and run", r"\bdownloadstring\b|\bmshta\b", ""),
    ("download and run", r"\bcertutil\b", r"-urlcache"),
    (
        "decoded code", r"\b(?:exec|eval|compile|__import__|loads)\s{0,4}\(",
        r"b(?:64|85|32|16)decode|a85decode|fromhex|unhexlify|decompress|rot.?13|marshal\.|\bchr\b"
        r"|bytes\(\[",
    ),
    ("decoded code", r"\bbase64\s{1,4}(?:-d|--decode)\b", r"\|"),
    ("decoded code", r"\bpowershell\b", r"\s-e(?:nc|ncodedcommand)?\b"),
    ("decoded code", r"\bmarshal\.loads\b", ""),
    ("shell", r"\b(?:os\.(?:system|popen|exec[lv]p?e?|spawn\w{1,4})|pty\.spawn)\b", ""),
    ("shell", r"\bsubprocess\b|\bcommands\.getoutput\b|\bshell\s{0,4}=\s{0,4}True\b", ""),
    ("hidden name", r"\b(?:getattr|__dict__|vars|globals|locals)\b",
     r"\A[^\n]{0,40}?(?:\bos\b|sys)"),
    ("shell", r"\bget_ipython\(\)\.(?:system|getoutput|run_cell)|\bchild_process\b|\brunpy\.", ""),
    ("shell", r"\bctypes\.(?:cdll|windll|pydll|util)\b", ""),
    ("hidden name", r"__import__\s{0,4}\(|\bimportlib\b|__builtins__|\b__subclasses__\b", ""),
    ("unpickle", r"\b(?:c?pickle|dill|joblib|cloudpickle|shelve)\.(?:loads?|Unpickler|open)\b", ""),
    ("unpickle", r"\bweights_only\s{0,4}=\s{0,4}False\b|\ballow_pickle\s{0,4}=\s{0,4}True\b", ""),
    ("remote code", r"\btrust_remote_code['\"]?\s{0,4}[=:]\s{0,4}True\b", ""),
    ("remote code", r"\btorch\.hub\.load\b|\bload_library\b", ""),
    ("secrets", r"\.ssh/|\bid_rsa\b|\.aws/credentials|\bAWS_SECRET|\.netrc\b|/etc/shadow\b", ""),
    ("secrets", r"\bget_token\s{0,4}\(|\.cache/huggingface/token|\bHF_TOKEN\b", ""),
    ("persistence", r"\bcrontab\b|\.bashrc\b|\.profile\b|authorized_keys", ""),
    ("persistence", r"CurrentVersion\\", r"\ARun"),
    ("reverse shell", r"/dev/(?:tcp|udp)/", ""),
    ("reverse shell", r"\bnc\b", r"\A[^\n]{0,40}?\s-e\b"),
    ("reverse shell", r"\bsocket\b", r"\bdup2\b"),
    ("install", r"\bpip3?\b",
     r"\A[^\n]{0,40}?\binstall\b[^\n]{0,40}?(?:https?:|git\+|--index-url)"),
    ("startup line", r"^import[ \t;]", ""),
    ("python tag", r"!!python/(?:object|name|module|apply)\b", ""),
    ("target", r"^[ \t]{0,40}['\"]?_target_['\"]?\s{0,4}:", ""),
)  # fmt: skip
_CONSTRUCTS = tuple(
    (name, re.compile(first, re.I | re.M), re.compile(then, re.I) if then else None)
    for name, first, then in _PATTERNS
)
#: What shows nothing and splits a word for a reader, not for a shell or an eye.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
WINDOW = 300
_TRIES = 2000  # beginnings of one construct that are followed
_MAGIC = re.compile(
    r"^[ \t]{0,40}(?:!{1,2}|%{1,2}(?:bash|sh|script|system|sx|cmd|perl|ruby)\b)", re.M
)
#: Constructs that only mean something in one kind of file.
_ONLY: Mapping[str, tuple[str, ...]] = {
    "startup line": (".pth",),
    "python tag": _YAML,
    "target": _YAML,
}


@dataclass(frozen=True, slots=True)
class _Found:
    construct: str
    text: str
    line: int
    cell: int | None = None


def code_facts(
    source: SourceFile, *, is_code: bool, room: int = TEXT_LIMIT
) -> tuple[Evidence, ...]:
    """Return `file.program` and `file.code_construct` of a file; `is_code`: its name says code.

    Looks at `room` bytes of text, TEXT_LIMIT at most, and says so where there are more. Takes a
    second for that much, whatever it is.
    """
    room = min(room, TEXT_LIMIT)
    head = source.read(0, _HEAD)
    kind, suffix = program(head), PurePosixPath(source.path).suffix.lower()
    subject = Subject("file", source.path)
    facts = []
    if kind:
        told: dict[str, Scalar] = {"suffix": suffix, "named": is_code}
        facts.append(Evidence("file.program", subject, kind, details=told))
    if suffix == ".ipynb":
        found = list(_notebook(source, room))
    elif is_code or kind == "script" or suffix in (*_YAML, ".pth"):
        data = source.read(0, room) if kind in ("", "script") else b""
        found = list(_constructs(_text(data), suffix))
        if data and source.size > room:
            found.append(_Found(UNREAD, f"read {room:,} of {source.size:,} bytes", 1))
    else:
        found = []
    for item in found:
        details: dict[str, Scalar] = {
            "line": item.line,
            "text": printable(item.text, _SHOWN),
            "cell": item.cell,
        }
        facts.append(Evidence("file.code_construct", subject, item.construct, "", details))
    return tuple(facts)


def _text(data: bytes) -> str:
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    return data.decode("utf-16" if wide else "utf-8", "replace")


def _constructs(text: str, suffix: str) -> Iterator[_Found]:
    """Yield the first place of each construct."""
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text.replace("\r\n", "\n")))
    plain = plain.replace("\\\n", " ").replace("${IFS}", " ").replace("''", "")
    told: set[str] = set()
    for construct, first, then in _CONSTRUCTS:
        if construct in told or suffix not in _ONLY.get(construct, (suffix,)):
            continue
        if place := _place(plain, first, then):
            told.add(construct)
            start, end = place
            yield _Found(construct, plain[start:end].strip(), plain.count("\n", 0, start) + 1)


def _place(
    text: str, first: re.Pattern[str], then: re.Pattern[str] | None
) -> tuple[int, int] | None:
    """Return where a construct is; text that begins it more often than we follow counts as one."""
    for tries, match in enumerate(first.finditer(text)):
        start, end = match.span()
        if then is None or tries == _TRIES:
            return start, end
        if found := then.search(text[end : end + WINDOW]):
            return start, end + found.end()
    return None


def _notebook(source: SourceFile, room: int) -> Iterator[_Found]:
    """Yield what the code cells of a notebook hold, read as JSON; a broken one as plain text."""
    try:
        if source.size > NOTEBOOK_LIMIT:
            raise ValueError
        data = source.read(0, NOTEBOOK_LIMIT)
        document = strict_json.parse(data, source.path, limit=NOTEBOOK_LIMIT)
        cells = document["cells"] if isinstance(document, dict) else ()
    except (FileProblem, KeyError, ValueError):
        yield from _constructs(_text(source.read(0, room)), ".ipynb")
        if source.size > room:
            yield _Found(UNREAD, "is no notebook that can be read whole", 1)
        return
    told: set[str] = set()
    for number, text in enumerate(_sources(cells), 1):
        room -= len(text)
        if room < 0:
            yield _Found(UNREAD, "has more code than is read", 1, number)
            return
        magic = _MAGIC.search(text)
        found = list(_constructs(text, ".py"))
        if magic:
            line = text[magic.start() :].strip().partition("\n")[0]
            found.append(_Found("shell", line, text.count("\n", 0, magic.start()) + 1))
        for item in found:
            if item.construct not in told:
                told.add(item.construct)
                yield _Found(item.construct, item.text, item.line, number)


def _sources(cells: object) -> Iterator[str]:
    """Yield the text of each cell, "" for one without code."""
    for cell in cells if isinstance(cells, list) else ():
        source = cell.get("source", "") if isinstance(cell, dict) else ""
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            yield ""
        elif isinstance(source, list):
            yield "".join(part for part in source if isinstance(part, str))
        else:
            yield source if isinstance(source, str) else ""
