"""`docs/limits.md` says what the code holds itself to."""

import pytest

from adapterscan import tokenizing
from adapterscan.formats import (
    chat_templates,
    deltas,
    gguf,
    hooks,
    json_cursor,
    patterns,
    pickle_file,
    safetensors,
    strict_json,
    tensors,
    tokenizer_json,
    vocabulary,
    zip_archive,
)
from adapterscan.reading import documents
from adapterscan.rules import docket, judging
from adapterscan.sources import hub_ranges
from adapterscan.weighing import factors, one_pass
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "limits.md").read_text("utf-8")


def mib(size):
    return f"{size >> 20} MiB"


@pytest.mark.parametrize(
    ("what", "limit"),
    [
        ("header of a safetensors file", mib(safetensors.HEADER_LIMIT)),
        ("tensors in a file", f"{tensors.TENSOR_LIMIT:,}"),
        ("entry of a tensor", f"{json_cursor.VALUE_LIMIT >> 10} KiB"),
        ("metadata", f"{safetensors.METADATA_LIMIT:,} keys"),
        ("metadata", mib(json_cursor.TEXT_LIMIT)),
        ("name of a tensor", f"{tensors.LONGEST_NAME:,}"),
        ("tensor names that are not ASCII", f"{safetensors.NAMES_LIMIT:,}"),
        ("ΔW in a file", f"{deltas.DELTA_LIMIT:,}"),
        ("rank", f"{factors.RANK_LIMIT:,}"),
        ("one factor", mib(factors.FACTOR_LIMIT)),
        ("all factors of a ΔW", mib(one_pass.ROOM_BYTES)),
        ("all factors of a ΔW", f"{one_pass.TENSOR_BYTES} bytes"),
        ("one pickle", mib(pickle_file._LONGEST_PICKLE)),
        ("what the pickles of a file would build", f"{pickle_file._MOST_OPCODES:,} opcodes"),
        ("what the pickles of a file would build", mib(pickle_file._MOST_VALUES)),
        ("members of a ZIP", f"{zip_archive._MOST_MEMBERS:,}"),
        ("members of a ZIP", mib(zip_archive._LONGEST_DIRECTORY)),
        ("ranges of files", mib(hub_ranges.MOST_BYTES_OF_A_FILE)),
        ("ranges of files", mib(hub_ranges.MOST_BYTES)),
        ("`adapter_config.json`", mib(documents.CONFIGS_LIMIT)),
        ("`adapter_config.json`", f"{documents.CONFIG_VALUES_LIMIT:,} values"),
        ("any other JSON", mib(documents.DOCUMENT_LIMIT)),
        ("any other JSON", f"{strict_json.VALUES_LIMIT:,} values"),
        ("a tokenizer's file", mib(tokenizer_json.TOKENIZER_LIMIT)),
        ("tokens of a vocabulary", f"{vocabulary.TOKENS_LIMIT:,}"),
        ("tokens of a vocabulary", mib(vocabulary.TEXTS_LIMIT)),
        ("merges", f"{vocabulary.MERGES_LIMIT:,}"),
        ("added tokens", f"{tokenizer_json.ADDED_LIMIT:,}"),
        ("a step of a tokenizer", mib(tokenizer_json.STEP_LIMIT)),
        ("odd things in the tokenizers", f"{tokenizing.FACTS_LIMIT:,}"),
        ("one text in a GGUF header", mib(gguf.SETTING_LIMIT)),
        ("one text in a GGUF header", mib(gguf.SETTINGS_LIMIT)),
        ("chat templates", f"{chat_templates.TEMPLATE_LIMIT >> 10} KiB"),
        ("chat templates", f"{chat_templates.TEMPLATES_LIMIT >> 10} KiB"),
        ("fields that name code", f"{hooks.HOOK_LIMIT:,}"),
        ("facts of one name", f"{docket.EVIDENCE_LISTED:,}"),
        ("facts that a finding cites", f"the {judging.EVIDENCE_SHOWN} worst"),
    ],
)
def test_the_page_has_the_limit(what, limit):
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| {what}"))
    assert limit in row.split("|")[2]


def test_the_page_has_the_memory_of_the_child():
    assert mib(patterns.MEMORY_BYTES) in PAGE
