"""Fixtures: a loopback hub with one adapter, and options that point the client at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adapterscan.sources import HubOptions
from fixtures.loopback_hub import LoopbackHub

ADAPTER = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "README.md": b"# a card\n",
    "adapter_config.json": b'{"peft_type": "LORA"}',
    "adapter_model.safetensors": bytes(range(256)) * 64,
    "tokenizer_config.json": b"{}",
    "trainer_state.json": b"{}",
    "training_args.bin": b"inert",
    "run.py": b"print()\n",
}


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub({"org/adapter": ADAPTER}, token="hf_secretsecretsecret") as server:
        yield server


@pytest.fixture
def options(hub: LoopbackHub, tmp_path: Path) -> HubOptions:
    return HubOptions(
        endpoint=hub.url, token=False, cache_dir=tmp_path / "cache", patience=0, timeout=2
    )
