from __future__ import annotations

import pytest

from adapterscan.model import FileKind
from adapterscan.sources import file_kind
from adapterscan.sources.kinds import is_full_model


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (FileKind.CONFIG, "adapter_config.json a/b/Adapter_Config.JSON"),
        (
            FileKind.WEIGHTS,
            "adapter_model.safetensors adapter_model.bin ADAPTER_MODEL.BIN adapters.npz"
            " adapters.safetensors pytorch_lora_weights.bin pytorch_lora_weights.safetensors"
            " adapter_0.pt my_style.safetensors x-lora-f16.gguf value_head.safetensors"
            " checkpoint-10/adapter_model.safetensors my-lora.pt 0000100_adapters.safetensors",
        ),
        (
            FileKind.PICKLE,
            "training_args.bin optimizer.pt optimizer.bin scheduler.pt scaler.pt rng_state.pth"
            " rng_state_0.pth random_states_0.pkl value_head.bin pytorch_model.bin x.ckpt x.joblib"
            " x.npy x.dill x.pickle non_lora_trainables.bin global_step1/mp_rank_00_model_states.pt"
            " explore.bin",
        ),
        (
            FileKind.TOKENIZER,
            "tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json"
            " vocab.json merges.txt tokenizer.model chat_template.jinja chat_template.json"
            " additional_chat_templates/tool_use.jinja",
        ),
        (FileKind.CARD, "README.md readme.MD"),
        (
            FileKind.CODE,
            "zero_to_fp32.py a.ipynb run.sh a.bat a.ps1 lib.so lib.so.1.2 a.dll a.dylib a.exe"
            " a.jar a.js a.pyc a.whl",
        ),
        (FileKind.OTHER, ".gitattributes trainer_state.json sample.png latest config.json"),
    ],
)
def test_names_tell_what_a_file_is_for(kind: FileKind, names: str) -> None:
    assert {name: file_kind(name) for name in names.split()} == dict.fromkeys(names.split(), kind)


def test_weights_of_a_whole_model_are_told_from_an_adapter_by_name() -> None:
    full = "model.safetensors model-00001-of-00004.safetensors pytorch_model-00001-of-00002.bin"
    full += " unsloth.Q4_K_M.gguf model.fp16.safetensors consolidated.00.pth"
    adapter = "adapter_model.safetensors my_style.safetensors tiny-lora-q8_0.gguf adapter.gguf"
    assert [is_full_model(name) for name in full.split()] == [True] * 6
    assert [is_full_model(name) for name in adapter.split()] == [False] * 4
