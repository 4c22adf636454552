"""Credentials that were never issued, put together while a test runs: none lies in a file."""

from __future__ import annotations

import base64
import json
import random
import string
import zlib

LETTERS = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


def letters(count: int, alphabet: str = LETTERS, seed: int = 1) -> str:
    """Return `count` random characters, the same each time."""
    numbers = random.Random(seed)
    return "".join(numbers.choice(alphabet) for _ in range(count))


def with_checksum(prefix: str) -> str:
    """Return a token as GitHub and npm issue them: 30 characters and their CRC-32 in base 62."""
    body = letters(30)
    value, digits = zlib.crc32(body.encode()), ""
    while value:
        value, digit = divmod(value, 62)
        digits = BASE62[digit] + digits
    return prefix + body + digits.rjust(6, "0")


def hub_token(seed: int = 1) -> str:
    """Return what looks like a token of the hub."""
    return "hf_" + letters(34, string.ascii_letters, seed)


def web_token() -> str:
    """Return what looks like a JWT."""
    parts = (b'{"alg":"HS256","typ":"JWT"}', json.dumps({"sub": letters(12)}).encode())
    encoded = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    return ".".join((*encoded, letters(43)))


def private_key(kind: str = "RSA PRIVATE KEY") -> str:
    """Return a block like that of a private key."""
    body = "\n".join(letters(64, seed=line) for line in range(20))
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----"


SURE = {
    "hub": hub_token(),
    "GitHub": with_checksum("ghp_"),
    "GitHub app": with_checksum("gho_"),
    "npm": with_checksum("npm_"),
    "GitHub fine-grained": f"github_pat_{letters(22)}_{letters(59)}",
    "GitLab": f"glpat-{letters(20)}",
    "Google": f"AIza{letters(35)}",
    "Groq": f"gsk_{letters(52)}",
    "OpenRouter": f"sk-or-v1-{letters(64, HEX)}",
    "Anthropic": f"sk-ant-api03-{letters(93)}AA",
    "OpenAI": f"sk-proj-{letters(60)}T3BlbkFJ{letters(60)}",
    "Slack": f"xoxb-{letters(12, string.digits)}-{letters(12, string.digits)}-{letters(24)}",
    "SendGrid": f"SG.{letters(22)}.{letters(43)}",
    "Azure": f"AccountKey={letters(86)}==",
    "AWS": f"aws_secret_access_key = {letters(40)}",
    "AWS in JSON": f'"SecretAccessKey": "{letters(40)}"',
    "Kaggle": f'{{"username":"someone","key":"{letters(32, HEX)}"}}',
    "RSA": private_key(),
    "OpenSSH": private_key("OPENSSH PRIVATE KEY"),
    "PKCS 8": private_key("PRIVATE KEY"),
    "encrypted": private_key().replace("KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\n\n", 1),
    "a key in JSON": json.dumps(private_key()),
    "a token in JSON escapes": hub_token().replace("h", "\\u0068"),
}
LIKELY = {
    "AWS id": "AKIA" + letters(16, string.ascii_uppercase + "234567"),
    "tracker": f"WANDB_API_KEY={letters(40, HEX)}",
    "netrc": f"machine api.wandb.ai\n  login user\n  password {letters(40, HEX)}",
    "login": f'wandb.login(key="{letters(40, HEX)}")',
    "JWT": web_token(),
    "remote": f"https://someone:{letters(12)}@git.example/x.git",
    "database": f"postgres://trainer:{letters(12)}@db:5432/runs",
    "setting": f'"hub_token": "{letters(30)}"',
    "password": f"password: {letters(24)}",
    "shell": f"export API_KEY={letters(32)}",
}
NONE = {
    "crossed out": "hf_" + "x" * 34,
    "a function": "hf_hub_download(repo_id, filename)",
    "no checksum": "ghp_" + letters(36),
    "an example": "AKIAIOSFODNN7EXAMPLE",
    "dots": "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
    "a public key": f"-----BEGIN PUBLIC KEY-----\n{letters(64)}\n-----END PUBLIC KEY-----",
    "your key": 'api_key="YOUR_API_KEY_GOES_HERE"',
    "password": "password: password",
    "a special token": '"unk_token": "<unk>", "token": "<s>"',
    "an address of documentation": "https://user:password@host/x",
    "words": "sk-learn, task-based, risk-free",
    "a module": '"secret": "model.layers.0.self_attn.q_proj"',
    "the environment": 'hf_token=os.environ["HF_TOKEN"]',
    "the trainer": '"hub_token": "<HUB_TOKEN>"',
    "a parameter": '"auth_token": "use_auth_token_parameter_2"',
    "a commit": "commit 3f786850e387550fdab836ed7e6dc881de23001b",
    "a digest": "sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "a run": "https://wandb.ai/team/project/runs/1a2b3c4d",
    "part of a longer word": hub_token() + "abc",
    "base64": letters(400),
}
