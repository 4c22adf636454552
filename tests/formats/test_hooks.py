"""Fields that name code are found at any depth, and a document cannot hide one or fill memory."""

import pytest

from adapterscan.errors import LimitExceeded
from adapterscan.formats.hooks import HOOK_LIMIT, Hook, find_hooks


@pytest.mark.parametrize(
    ("document", "field", "value"),
    [
        ({"auto_map": {"AutoModel": "x.Y"}}, "auto_map", "{'AutoModel': 'x.Y'}"),
        ({"a": [{"b": {"trust_remote_code": True}}]}, "a.0.b.trust_remote_code", True),
        ({"attn_implementation": "org/kernel"}, "attn_implementation", "org/kernel"),
    ],
)
def test_a_field_that_names_code_is_found_at_any_depth(document, field, value):
    assert find_hooks(document, "config.json") == [Hook("config.json", field, value)]


@pytest.mark.parametrize(
    "document",
    [{"auto_map": {}}, {"trust_remote_code": False}, {"attn_implementation": "sdpa"}, [], 1, None],
)
def test_what_names_no_code_is_no_hook(document):
    assert find_hooks(document, "config.json") == []


def test_hooks_are_all_told_or_the_document_is_refused():
    document = [{"auto_map": "x"}] * HOOK_LIMIT
    assert len(find_hooks(document, "config.json")) == HOOK_LIMIT
    with pytest.raises(LimitExceeded):
        find_hooks([*document, {"auto_map": "y"}], "config.json")


def test_a_long_key_is_not_repeated_for_each_hook_below_it():
    (hook,) = find_hooks({"k" * 1_000_000: {"auto_map": "x" * 1_000_000}}, "config.json")
    assert len(hook.field) <= 200
    assert hook.field.endswith("auto_map")
    assert len(str(hook.value)) <= 200
