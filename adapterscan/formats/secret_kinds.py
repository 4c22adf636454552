"""What credentials look like: a mark that is cheap to find, a shape around it, and a proof.

Every pattern is ours, has no nested repeat, and is matched over a bounded stretch of text.
Sources: the issuers' own descriptions of their token formats (GitHub's has a checksum since 2021).
Limits: formats that are listed here. A token without a prefix, in two pieces, or encoded once more
is not seen; neither is a password in prose.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#: What documentation writes where a secret belongs.
_PLACEHOLDER = re.compile(
    r"x{4,}|\*{3,}|\.{3,}|<|>|\{|\}|your|example|placeholder|dummy|sample|changeme|redacted|insert|"
    r"replace|fake|token_here|key_here|0{8,}|1234567|abcdef(?:gh|123)",
    re.IGNORECASE,
)
_COMMON = frozenset("password passwd secret postgres pass1234 changeit minioadmin".split())
_MIXTURE = 2  # places where a digit follows a letter, or a letter a digit
_ENOUGH = 3.0  # bits for each character; words have 2.5 and less, random letters 4 and more


@dataclass(frozen=True, slots=True)
class Kind:
    """One format of a credential.

    `mark` finds places in linear time; `shape` is matched from `back` characters before one to
    `room` after, and its group `s` is the secret. `sure`: nothing else looks so. `words`: one of
    them stands in lower case in every text that has the mark.
    """

    name: str
    mark: re.Pattern[str]
    shape: re.Pattern[str] | None = None
    proof: Callable[[str], bool] = lambda _: True
    sure: bool = True
    back: int = 0
    room: int = 512
    words: tuple[str, ...] = ()


def _random(secret: str) -> bool:
    """Return whether the characters of `secret` are as mixed as those of a generated one."""
    body = secret.rpartition("_")[2] if secret.count("_") == 1 else secret
    if _PLACEHOLDER.search(body):
        return False
    counts = Counter(body)
    share = (count / len(body) for count in counts.values())
    return bool(body) and -sum(part * math.log2(part) for part in share) >= _ENOUGH


def _checked(secret: str) -> bool:
    """Return whether the last six characters are the base-62 CRC-32 of those after the prefix."""
    body = secret.partition("_")[2]
    value, digits = zlib.crc32(body[:-6].encode()), ""
    while value:
        value, digit = divmod(value, 62)
        digits = _DIGITS[digit] + digits
    return body[-6:] == digits.rjust(6, "0")


def _is_jwt(secret: str) -> bool:
    """Return whether the first part of three decodes to a header with an algorithm."""
    head = secret.partition(".")[0]
    try:
        found = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return False
    return isinstance(found, dict) and "alg" in found


def _is_key(secret: str) -> bool:
    """Return whether a block holds a key and not dots: 64 characters of base64 and more."""
    body = re.sub(r"\\+[nrt]|[\s\\,\"']", "", secret)
    run = re.search(r"[A-Za-z0-9+/=]{64}", body)
    return run is not None and _random(run[0])


def _mixed(secret: str) -> bool:
    """Return whether a value is random, with letters and digits, and no path, name or address."""
    return (
        _random(secret)
        and len(re.findall(r"[A-Za-z][0-9]|[0-9][A-Za-z]", secret)) >= _MIXTURE
        and not re.search(r"[/\\ ()]|\.(?:py|json|txt|com|org|safetensors)\b|\$", secret)
        and len(set(secret)) >= 8
    )


def _at_mark(name: str, words: str, pattern: str, proof: Callable[[str], bool] = _random) -> Kind:
    found = re.compile(rf"(?P<s>{pattern})")
    return Kind(name, found, proof=proof, words=tuple(words.split()))


KINDS: tuple[Kind, ...] = (
    _at_mark("Hugging Face token", "hf_ api_org_", r"(?:hf_|api_org_)[A-Za-z0-9]{34}"),
    _at_mark("GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_", r"gh[pousr]_[A-Za-z0-9]{36}", _checked),
    _at_mark("GitHub token", "github_pat_", r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    _at_mark("npm token", "npm_", r"npm_[A-Za-z0-9]{36}", _checked),
    _at_mark("GitLab token", "glpat- gldt- glrt- glptt-", r"gl(?:pat|dt|rt|ptt)-[A-Za-z0-9_-]{20}"),
    _at_mark("Google API key", "aiza", r"AIza[A-Za-z0-9_-]{35}"),
    _at_mark("Google client secret", "gocspx-", r"GOCSPX-[A-Za-z0-9_-]{28}"),
    _at_mark("Groq key", "gsk_", r"gsk_[A-Za-z0-9]{52}"),
    _at_mark("Replicate token", "r8_", r"r8_[A-Za-z0-9]{37}"),
    _at_mark("xAI key", "xai-", r"xai-[A-Za-z0-9]{80}"),
    _at_mark("OpenRouter key", "sk-or-v1-", r"sk-or-v1-[0-9a-f]{64}"),
    _at_mark("Anthropic key", "sk-ant-", r"sk-ant-[a-z]{2,8}[0-9]{2}-[A-Za-z0-9_-]{80,110}"),
    _at_mark("Stripe key", "k_live_", r"[sr]k_live_[A-Za-z0-9]{24}"),
    _at_mark("SendGrid key", "sg.", r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    _at_mark("PyPI token", "pypi-ageichlwas5vcmc", r"pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,200}"),
    _at_mark("Weights & Biases key", "wandb_v1_", r"wandb_v1_[A-Za-z0-9_-]{40,120}"),
    _at_mark("Slack token", "xox", r"xox[abeoprs]-[0-9A-Za-z]{1,16}-[0-9A-Za-z-]{16,200}"),
    _at_mark("Slack token", "xapp-", r"xapp-[0-9]-[A-Z0-9]{8,14}-[0-9]{8,16}-[0-9a-f]{64}"),
    _at_mark("Slack webhook", "hooks.slack",
             r"hooks\.slack\.com/services/T[A-Z0-9]{6,12}/B[A-Z0-9]{6,14}/\w{24}"),
    _at_mark("Discord webhook", "/api/webhooks/",
             r"discord(?:app)?\.com/api/webhooks/[0-9]{17,20}/[\w-]{60,70}"),
    _at_mark("Telegram token", ":aa", r"[0-9]{8,10}:AA[A-Za-z0-9_-]{33}"),
    Kind(
        "OpenAI key", re.compile("T3BlbkFJ"),
        re.compile(r"(?s).{0,220}?(?P<s>sk-[A-Za-z0-9_-]{16,200}T3BlbkFJ[A-Za-z0-9_-]{16,200})"),
        _random, back=220, room=460, words=("t3blbkfj",),
    ),
    Kind(
        "AWS secret key", re.compile(r"(?i)secret[_-]?(?:access[_-]?)?key"),
        re.compile(r"(?i:secret[_-]?(?:access[_-]?)?key)[^A-Za-z0-9/+]{1,12}"
                   r"(?P<s>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"),
        _random, room=96, words=("secret",),
    ),
    Kind(
        "AWS access key id", re.compile(r"(?P<s>(?:AKIA|ASIA)[A-Z2-7]{16})"), None,
        lambda s: _random(s[4:]) and not s.endswith("EXAMPLE"), sure=False, words=("akia", "asia"),
    ),
    Kind(
        "private key",
        re.compile(r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,2}PRIVATE KEY(?: BLOCK)?-----"),
        re.compile(r"(?s)(?P<s>-----BEGIN [A-Z0-9 ]{0,40}-----.{64,3600}?)(?:-----|\Z)"),
        lambda s: _is_key(s.partition("KEY")[2].partition("-----")[2]),
        room=3600, words=("-----begin ",),
    ),
    Kind(
        "private key", re.compile("PuTTY-User-Key-File-[23]"),
        re.compile(r"(?s)(?P<s>PuTTY-User-Key-File-[23]: .{40,2000}?Private-Lines)"),
        room=2100, words=("putty-user-key",),
    ),
    Kind(
        "Weights & Biases key", re.compile(r"(?i)wandb"),
        re.compile(r"(?is)wandb.{0,80}?(?<![0-9a-f])(?P<s>[0-9a-f]{40})(?![0-9a-f])"),
        _random, sure=False, room=160, words=("wandb",),
    ),
    Kind(
        "Kaggle key", re.compile(r'"key"\s{0,4}:\s{0,4}"(?=[0-9a-f]{32}")'),
        re.compile(r'(?s).{0,120}?"username".{0,120}?"key"\s{0,4}:\s{0,4}"(?P<s>[0-9a-f]{32})"'),
        _random, back=120, room=240, words=('"username"',),
    ),
    Kind(
        "Azure storage key", re.compile("AccountKey="),
        re.compile(r"AccountKey=(?P<s>[A-Za-z0-9+/]{86}==)"), _random,
        room=128, words=("accountkey=",),
    ),
    Kind(
        "password in an address", re.compile("://"),
        re.compile(r"://[^\s/:@\"'<>{}$]{0,64}:(?P<s>[^\s/:@\"'<>{}$]{6,128})@[A-Za-z0-9]"),
        lambda s: not _PLACEHOLDER.search(s) and s.lower() not in _COMMON,
        sure=False, room=220, words=("://",),
    ),
    Kind(
        "web token", re.compile(r"eyJ[A-Za-z0-9_-]{8}"),
        re.compile(r"(?P<s>eyJ[A-Za-z0-9_-]{8,800}\.eyJ[A-Za-z0-9_-]{8,1600}\.[A-Za-z0-9_-]{16,800})"),
        _is_jwt, sure=False, room=3300, words=("eyj",),
    ),
    Kind(
        "assigned secret",
        re.compile(r"(?i)(?:passw(?:or)?d|passphrase|secret|api[_-]?key|auth[_-]?token|"
                   r"access[_-]?token|hub[_-]?token|hf[_-]?token|private[_-]?key)"),
        re.compile(r"[A-Za-z_-]{6,40}[\"']?\s{0,4}(?:=|:|=>)\s{0,4}\\?[\"']?"
                   r"(?P<s>[^\s\"'\\,;#]{16,160})"),
        _mixed, sure=False, room=240, words=("pass", "secret", "key", "token"),
    ),
)  # fmt: skip
