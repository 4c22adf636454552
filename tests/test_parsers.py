"""Every parser of strangers' files, fed with what breaks parsers: only errors of ours come out.

The targets are those of `fuzz/`; what fuzzing or reading found broken is among the inputs.
"""

import json
import re
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapterscan.config import load_settings
from adapterscan.errors import AdapterscanError
from adapterscan.rules.book import load_rules
from fuzz.targets import TARGETS

NUMBERS = [
    b"Infinity", b"-Infinity", b"NaN", b"1e999", b"-4", b"99999999999999999999",
    b"1" + b"0" * 400, b"1" + b"0" * 5000, b"1" * 1_000_000, b"[]", b'"a"', b"true", b"null", b"{}",
]  # fmt: skip
BYTES = [
    b"", b"\0", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"a=" + b"[" * 100_000,
    b"texts=[" + b"1" * 5000 + b"]", b'"\\ud800"', b"GGUF" + b"\xff" * 60,
    b"PK\x05\x06" + b"\xff" * 18,
    b"\x80\x04" + b"\x8e" + b"\xff" * 8, b"(" * 100_000, b"{{" * 10_000, b"{% if a %}" * 5000,
]  # fmt: skip
TEXT = sorted(set(TARGETS) - {"pattern", "pickle", "gguf", "card", "listing", "adapter"})


def fed(name, data):
    """Feed one target; nothing but our own errors may come out."""
    with suppress(AdapterscanError):
        TARGETS[name].feed(data)


def seeds(name, count):
    return [seed for seed, _ in zip(TARGETS[name].seeds(), range(count), strict=False)]


@pytest.mark.parametrize("name", sorted(TARGETS))
@pytest.mark.parametrize("data", BYTES, ids=range(len(BYTES)))
def test_broken_bytes_are_an_error_of_ours(name, data):
    fed(name, data)


@pytest.mark.parametrize("name", TEXT)
@pytest.mark.parametrize("number", NUMBERS, ids=range(len(NUMBERS)))
def test_any_number_may_be_another_thing(name, number):
    for seed in seeds(name, 2):
        for place in [match.span() for match in re.finditer(rb"(?<![\w.\-])\d+", seed)][:40]:
            fed(name, seed[: place[0]] + number + seed[place[1] :])


@pytest.mark.parametrize("number", ["Infinity", "1e999", "-4", "1" + "0" * 400, "true", "1.5"])
@pytest.mark.parametrize("place", ['"count": 10', "[4, 4]"])
def test_a_profile_with_an_impossible_size_is_refused(number, place):
    (data,) = TARGETS["profile"].seeds()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    metadata = header["__metadata__"]
    other = place.replace("10", number).replace("[4,", f"[{number},")
    assert place in metadata["about"]
    metadata["about"] = metadata["about"].replace(place, other)
    raw = json.dumps(header).encode()
    with pytest.raises(AdapterscanError, match="profile of a base"):
        TARGETS["profile"].feed(len(raw).to_bytes(8, "little") + raw + data[8 + length :])


@pytest.mark.parametrize("name", sorted(set(TARGETS) - {"pattern", "adapter"}))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    place=st.floats(0, 1, exclude_max=True), cut=st.integers(0, 12), put=st.binary(max_size=12),
    which=st.integers(0, 30),
)  # fmt: skip
def test_a_seed_with_other_bytes_in_it_is_read_or_refused(name, place, cut, put, which):
    found = seeds(name, 31)
    seed = found[which % len(found)]
    at = int(place * len(seed))
    fed(name, seed[:at] + put + seed[at + cut :])


@pytest.mark.parametrize("text", ["a=" + "[" * 100_000, "a=" + "1" * 5000])
def test_a_settings_file_that_no_parser_survives_is_an_error_of_ours(tmp_path, text):
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(AdapterscanError, match="is not valid TOML"):
        load_settings(path, tmp_path, ())


@pytest.mark.parametrize("text", ["a=" + "[" * 100_000, "a=" + "1" * 5000])
def test_a_rule_that_no_parser_survives_is_an_error_of_ours(tmp_path, text):
    (tmp_path / "my-rule").mkdir()
    (tmp_path / "my-rule" / "rule.toml").write_text(text)
    with pytest.raises(AdapterscanError, match="is not TOML"):
        load_rules((tmp_path,))
