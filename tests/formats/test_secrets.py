"""Credentials in text: told by kind and place, never by content, in bounded time."""

from __future__ import annotations

import time

import pytest

from adapterscan.formats.secret_kinds import KINDS
from adapterscan.formats.secrets import PLACES, SHOWN, find_secrets, unescaped, without
from adapterscan.formats.traces import find_traces
from adapterscan.text import redact
from tests.provenance.made_up import LIKELY, NONE, SURE, hub_token, letters

MEGABYTE = 1 << 20
HOSTILE = {
    "prefixes": "hf_",
    "web tokens": "eyJ",
    "web tokens of one part": "eyJ" + "a" * 20 + ".",
    "marks of OpenAI": "T3BlbkFJ",
    "heads of keys": "-----BEGIN PRIVATE KEY-----",
    "keys that never end": "-----BEGIN PRIVATE KEY-----" + "A" * 3600,
    "keys of JSON": '"username":"a","key":"',
    "names": "wandb",
    "names and filling": "wandb" + "a" * 79,
    "passwords": "password=" + "a" * 160 + " ",
    "addresses": "://",
    "logins": "://a:",
    "one letter": "a",
    "at signs": "@",
    "mail": "a.b@",
    "folders": "/home/",
    "hosts": ".local",
    "digits": "1",
    "networks": "10.",
    "escapes": "\\u0068",
    "lines": "\n",
}


@pytest.mark.parametrize("name", SURE)
def test_a_credential_that_its_form_proves_is_found(name: str) -> None:
    found = find_secrets(unescaped(f"first line\nhere: {SURE[name]}\n")).secrets
    assert [(secret.sure, secret.line) for secret in found] == [(True, 2)]


@pytest.mark.parametrize("name", LIKELY)
def test_what_its_place_speaks_for_is_found_and_called_likely(name: str) -> None:
    found = find_secrets(f"here: {LIKELY[name]}\n").secrets
    assert [secret.sure for secret in found] == [False]


@pytest.mark.parametrize("name", NONE)
def test_what_documentation_and_models_hold_is_no_credential(name: str) -> None:
    assert find_secrets(f"here: {NONE[name]}\n").secrets == ()


def test_no_more_than_four_characters_of_a_secret_are_kept() -> None:
    token = hub_token()
    (secret,) = find_secrets(f"token: {token}").secrets
    assert (secret.start, secret.length) == (token[:SHOWN], len(token))
    assert token[: SHOWN + 1] not in repr(secret)


def test_what_stands_beside_it_matters_in_text_and_not_in_bytes() -> None:
    token = hub_token()
    assert not find_secrets(f"{token}q").secrets
    assert find_secrets(f"\x00{token}q", binary=True).secrets


def test_a_text_can_be_had_without_its_secrets() -> None:
    token, text = hub_token(), f"a {hub_token()} b {hub_token(2)}"
    cleaned = without(text, find_secrets(text).secrets)
    assert cleaned == "a [secret] b [secret]"
    assert token not in cleaned


def test_more_places_than_are_looked_at_are_told() -> None:
    found = find_secrets("T3BlbkFJ " * (PLACES + 1))
    assert found.cut == ("OpenAI key",)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_of_what_looks_like_marks_takes_seconds_at_most(name: str) -> None:
    piece = HOSTILE[name]
    text = (piece * (MEGABYTE // len(piece) + 1))[:MEGABYTE]
    start = time.process_time()
    find_secrets(unescaped(text))
    find_traces(text)
    assert time.process_time() - start < 4  # 0.1 to 0.6 s on an idle core


def test_the_words_of_a_kind_stand_in_whatever_it_finds() -> None:
    texts = [unescaped(text).lower() for text in (*SURE.values(), *LIKELY.values())]
    for kind in KINDS:
        for text in texts:
            if kind.mark.search(text):
                assert any(word in text for word in kind.words), kind.name


@pytest.mark.parametrize("name", ["hub", "GitHub", "GitHub fine-grained", "GitLab", "OpenAI"])
def test_messages_leave_out_credentials_that_their_prefix_tells(name: str) -> None:
    assert SURE[name][12:] not in redact(f"cannot read {SURE[name]}")


def test_messages_leave_out_a_password_in_an_address() -> None:
    assert redact("https://me:s3cret@host/x") == "https://[redacted]@host/x"
    assert redact("https://host:8080/x@y") == "https://host:8080/x@y"


def test_messages_keep_names_that_only_begin_alike() -> None:
    for name in ("r8_alpha16_dropout", "npm_run", "task-classification-adapter-large", "hf_hub"):
        assert redact(name) == name


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('"base": "/home/alice/models/llama"', "home folder"),
        ('"base": "/Users/alice/x"', "home folder"),
        (r'"base": "C:\\Users\\Alice\\x"', "home folder"),
        ("/mnt/nas/alice/data", "folder of a machine"),
        ("contact: alice@labs.example", "e-mail address"),
        ("master_addr: 192.168.1.17", "internal address"),
        ("endpoint: https://trainer.corp/x", "internal host"),
        ("https://wandb.ai/team/project/runs/1a2b3c4d", "run of a tracker"),
        ('"dataset_name": "alice/private"', "data set"),
    ],
)
def test_a_trace_is_told_with_its_kind(text: str, kind: str) -> None:
    assert [trace.kind for trace in find_traces(text)][:1] == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "cd /home/user/project", "/root/", "version 10.1", "a@b", "someone@example.com",
        "path/to/data", "config.local.json", "https://huggingface.co/home/x", letters(200),
    ],
)  # fmt: skip
def test_what_everybody_has_is_no_trace(text: str) -> None:
    assert find_traces(text) == []


def test_a_trace_is_counted_once_with_how_often_it_is_there() -> None:
    (trace,) = find_traces("/home/alice/a\n" * 7)
    assert trace.times == 7
