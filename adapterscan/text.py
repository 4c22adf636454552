"""Make untrusted text safe to show: one line, printable, bounded, nothing invisible.

Names of files, tensors and config fields come from whoever made the adapter. Terminals obey escape
sequences, bidi controls reorder what a reviewer reads, build servers obey lines of a log, and
secrets must not travel into reports.
"""

from __future__ import annotations

import re
import unicodedata

#: Categories that never reach a terminal as they are: controls, format characters (bidi, zero
#: width, tags), surrogates, private use, unassigned, line and paragraph separators.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
#: Letters and symbols by category that show nothing: Hangul fillers and the empty Braille cell.
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
#: What build servers take for commands: `::error::` where a line begins, which can be at any word
#: when lines are wrapped; `##[error]`, `##vso[task.…]`, `##teamcity[…]` anywhere.
_COMMAND = re.compile(r"(?<!\S)::|##(?=\[|vso\[|teamcity\[)")
_IN_JSON = re.compile(r"(##(?:vso|teamcity)?)\[")
WITHHELD = "[redacted"  # how what stands for a text that is left out begins
#: Credentials that tell themselves by how they begin, and a password in an address. The search that
#: reports them is in `formats/secrets.py`; here they are kept out of whatever else quotes text.
_TOKEN = re.compile(
    r"(hf_)[A-Za-z0-9]{8,}"
    r"|(api_org_|gh[pousr]_|npm_|gsk_|r8_|xai-|GOCSPX-|AIza)[A-Za-z0-9_-]{28,}"
    r"|(github_pat_|wandb_v1_|glpat-|xox[a-z]-|(?<![A-Za-z])sk-)[A-Za-z0-9_-]{16,}"
)
#: A hub token as it is issued: where names must stay whole, only that is taken out.
_WHOLE_TOKEN = re.compile(r"(hf|api_org)_[A-Za-z0-9]{30,}")
_LOGIN = re.compile(r"(?<=://)[^\s/:@]{0,64}:[^\s/@]{1,128}@")


def is_hidden(character: str) -> bool:
    """Return whether `character` is invisible, reorders text or steers a terminal."""
    return unicodedata.category(character) in _HIDDEN or character in _BLANK


def printable(text: str, limit: int = 200) -> str:
    """Return `text` with hidden characters escaped, cut in the middle at `limit` characters."""
    if not (text.isascii() and text.isprintable()):
        text = "".join(_escape(c) if is_hidden(c) else c for c in text[: 8 * limit])
    text = redact(text)
    if "::" in text or "##" in text:
        text = _COMMAND.sub(lambda found: f"{found[0][0]}\\{found[0][1]}", text)
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    return f"{text[:head]}…{text[len(text) - (limit - head - 1) :]}"


def redact(text: str) -> str:
    """Return `text` without anything that looks like a token or a password in an address."""
    if "://" in text:
        text = _LOGIN.sub(f"{WITHHELD}]@", text)
    return _TOKEN.sub(lambda match: f"{match[match.lastindex or 0]}{WITHHELD}]", text)


def redact_issued(text: str) -> str:
    """Return `text` without hub tokens and passwords in addresses.

    Names such as `hf_transformers` stay.
    """
    if "://" in text:
        text = _LOGIN.sub(f"{WITHHELD}]@", text)
    if "hf_" not in text and "api_org_" not in text:
        return text
    return _WHOLE_TOKEN.sub(r"\1_[redacted]", text)


def safe_json(text: str) -> str:
    """Return JSON that means the same, but for hub tokens that somebody left in a file.

    Build servers search logs for `##[` and its like, and obey: the bracket is escaped there.
    """
    text = redact_issued(text)
    return _IN_JSON.sub(lambda found: f"{found[1]}\\u005b", text) if "##" in text else text


def withheld(text: str) -> str:
    """Return what stands in a report for a text that must not: how long it was."""
    return f"{WITHHELD}, {plural(len(text), 'character')}]"


def size_text(size: float) -> str:
    """Return a byte count for people: `160.2 MB` (decimal units, as hubs show them)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def plural(count: int, noun: str, many: str = "") -> str:
    """Return `1 tensor`, `12 tensors`, or with `many` given, `2 entries`."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
