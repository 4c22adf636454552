"""The ways to make a LoRA adapter, and what to expect of our reading of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from peft import AdaLoraConfig, LoraConfig

QV = ("q_proj", "v_proj")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


#: PEFT saves the base's own weight of an adapted embedding, and only the base can tell whether it
#: is a copy: the reader is asked, at medium.
BASE_LAYER = frozenset({"adapted-embedding-replaced"})


@dataclass(frozen=True)
class Variant:
    """One adapter. `compared`: what ΔW is held against.

    "merge": what `merge_and_unload` adds to the base; "factors": the layer's own B·A·s, where the
    variant's true change also depends on the base; "none": we must say that it was not analysed.
    """

    name: str
    base: str = "llama"
    config: Mapping[str, Any] = field(default_factory=dict)
    compared: str = "merge"
    make: Callable[..., Any] = LoraConfig
    prepare: Callable[[Any], None] | None = None
    expected: frozenset[str] = frozenset()  # rules of medium or above that are right here
    complete: bool = True
    size: float = 0.1  # of the values that it is filled with
    partial: str = ""  # what a Skipped must say although the scan is complete

    def settings(self):
        """Return the PEFT config."""
        options = {"r": 4, "lora_alpha": 6, "init_lora_weights": False, **self.config}
        if self.make is not LoraConfig:
            options = dict(self.config)
        if "target_modules" not in options and self.base.endswith("llama"):
            options["target_modules"] = list(QV)
        return self.make(**options)


def _resize(model):
    model.resize_token_embeddings(44)


ADALORA = {
    "target_modules": list(QV), "init_r": 5, "lora_alpha": 7, "total_step": 10,
    "init_lora_weights": False,
}  # fmt: skip
DOWN, GATE = "mlp.experts.down_proj", "mlp.experts.gate_up_proj"

VARIANTS = (
    Variant("plain"),
    Variant("rsLoRA", config={"use_rslora": True}),
    Variant(
        "target_modules as a regex", config={"target_modules": r".*\.1\.(self_attn|mlp)\.\w+_proj"}
    ),
    Variant("all-linear", config={"target_modules": "all-linear"}),
    Variant(
        "rank_pattern and alpha_pattern",
        config={
            "target_modules": list(ATTENTION),
            "rank_pattern": {r"layers\.0\..*q_proj": 2, "q_proj": 8, ".*v_proj": 3},
            "alpha_pattern": {r"layers\.1\..*": 5, "k_proj": 9, r"model\.layers\.0.*": 7},
        },
    ),
    Variant(
        "patterns that overlap",
        config={
            "target_modules": list(ATTENTION),
            "rank_pattern": {r".*0\..*q_proj": 2, r".*proj": 3, "q_proj": 8},
            "alpha_pattern": {r".*_proj": 5, "q_proj": 11},
        },
    ),
    Variant(
        "rsLoRA with patterns",
        config={"use_rslora": True, "rank_pattern": {"q_proj": 8}, "alpha_pattern": {"v_proj": 3}},
    ),
    Variant(
        "pattern without a group",
        config={"rank_pattern": {"k_proj|q_proj": 8}, "alpha_pattern": {"^model.*v_proj": 3}},
    ),
    Variant(
        "Conv1D (fan_in_fan_out)",
        "gpt2",
        {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
    ),
    Variant(
        "Conv1D, default targets",
        "gpt2",
        {"task_type": "CAUSAL_LM", "fan_in_fan_out": True},
    ),
    Variant(
        "embedding",
        config={"target_modules": ["embed_tokens", "q_proj"]},
        expected=BASE_LAYER,
    ),
    Variant(
        "embedding and head",
        config={"target_modules": ["embed_tokens", "lm_head"]},
        expected=BASE_LAYER,
    ),
    Variant("GPT-2 embeddings", "gpt2", {"target_modules": ["wte", "wpe"]}),
    Variant("OPT", "opt", {"target_modules": ["q_proj", "v_proj", "fc1", "fc2"]}),
    Variant("OPT, all-linear, bias all", "opt", {"target_modules": "all-linear", "bias": "all"}),
    Variant("Conv1d, Conv2d, Conv3d", "Convolutions", {"target_modules": ["one", "two", "three"]}),
    Variant(
        "BERT classifier", "bert", {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"}
    ),
    Variant("lora_bias", "biased_llama", {"lora_bias": True}),
    Variant("bias all", "biased_llama", {"bias": "all"}),
    Variant("bias lora_only", "biased_llama", {"bias": "lora_only"}),
    Variant(
        "DoRA",
        config={"use_dora": True},
        compared="factors",
        partial="DoRA",
    ),
    Variant(
        "DoRA, convolutions",
        "Convolutions",
        {"target_modules": ["one", "two", "three"], "use_dora": True},
        "factors",
        partial="DoRA",
    ),
    Variant(
        "DoRA, embedding",
        config={"target_modules": ["embed_tokens"], "use_dora": True},
        compared="factors",
        partial="DoRA",
        expected=BASE_LAYER,
    ),
    Variant("AdaLoRA", config={**ADALORA}, make=AdaLoraConfig),
    Variant("AdaLoRA, alpha 0", config={**ADALORA, "lora_alpha": 0}, make=AdaLoraConfig),
    Variant(
        "AdaLoRA, pruned",
        config={
            **ADALORA,
            "rank_pattern": {
                f"model.layers.{layer}.self_attn.{name}.lora_E": [True, False, True, kept, False]
                for layer, kept in ((0, True), (1, False))
                for name in QV
            },
        },
        make=AdaLoraConfig,
    ),
    Variant("layer_replication", config={"layer_replication": [[0, 2], [1, 2]]}),
    Variant(
        "target_parameters, one",
        "mixtral",
        {"target_modules": ["q_proj"], "target_parameters": [DOWN]},
    ),
    Variant(
        "target_parameters, two",
        "mixtral",
        {"target_modules": ["q_proj"], "target_parameters": [GATE, DOWN]},
    ),
    Variant(
        "target_parameters, transposed layout",
        "gpt_oss",
        {"target_modules": ["q_proj"], "target_parameters": [GATE, DOWN]},
    ),
    Variant(
        "target_parameters with rank_pattern",
        "mixtral",
        {
            "target_modules": [],
            "target_parameters": [GATE, DOWN],
            "rank_pattern": {"experts.gate_up_proj": 2},
            "alpha_pattern": {"down_proj": 9},
        },
    ),
    Variant(
        "target_parameters of a matrix",
        "mixtral",
        {"target_modules": [], "target_parameters": ["mlp.gate.weight", "q_proj.weight"]},
    ),
    Variant("MoE experts by their old names", "mixtral", {"target_modules": ["w1", "w2", "w3"]}),
    Variant("modules_to_save", config={"modules_to_save": ["lm_head", "embed_tokens"]}),
    Variant("modules_to_save by suffix", config={"modules_to_save": ["norm"]}),
    Variant(
        "modules_to_save of a classifier",
        "classifier",
        {"target_modules": list(QV), "task_type": "SEQ_CLS"},
    ),
    Variant("trainable_token_indices", config={"trainable_token_indices": [1, 5]}),
    Variant("trainable_token_indices, tied", "tied_llama", {"trainable_token_indices": [1, 5]}),
    Variant(
        "trainable_token_indices by module",
        config={"trainable_token_indices": {"embed_tokens": [1], "lm_head": [2, 3]}},
    ),
    Variant("tied embeddings, saved", "tied_llama", {"modules_to_save": ["lm_head"]}),
    Variant(
        "tied embeddings, adapted",
        "tied_llama",
        {"target_modules": ["embed_tokens"]},
        expected=BASE_LAYER,
    ),
    Variant(
        "tied embeddings, ensure_weight_tying",
        "tied_llama",
        {"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
        expected=BASE_LAYER,
    ),
    Variant(
        "resized vocabulary",
        prepare=_resize,
        expected=frozenset({"embedding-replaced-undeclared"}),
    ),
    Variant(
        "exclude_modules",
        config={"exclude_modules": r".*\.0\..*", "target_modules": list(ATTENTION)},
    ),
    Variant("layers_to_transform", config={"layers_to_transform": [1], "layers_pattern": "layers"}),
    Variant(
        "aLoRA",
        config={"alora_invocation_tokens": [3, 4]},
        compared="factors",
        expected=frozenset({"conditional-activation"}),
    ),
    Variant("PiSSA", config={"init_lora_weights": "pissa"}, partial="initialisation"),
    Variant("OLoRA", config={"init_lora_weights": "olora"}, partial="initialisation"),
    Variant("KaSA", config={"kasa_config": "KasaConfig"}, compared="factors", partial="KaSA"),
    Variant("MonteCLoRA", config={"monteclora_config": "MontecloraConfig"}),
    Variant("VeLoRA", config={"velora_config": "VeloraConfig"}),
    Variant("QALoRA", config={"use_qalora": True}, compared="factors", partial="QALoRA"),
    Variant("BD-LoRA", config={"use_bdlora": "BdLoraConfig"}, compared="none", complete=False),
)

#: Types without a ΔW that follows from the file and the base.
OTHERS = (
    ("VeraConfig", {"target_modules": ["q_proj"], "save_projection": False}),
    ("UniLoraConfig", {"target_modules": ["q_proj"]}),
    ("OSFConfig", {"target_modules": list(QV)}),
    ("PsoftConfig", {"target_modules": list(QV), "r": 4}),
    ("PeanutConfig", {"target_modules": list(QV), "r": 4}),
    ("FrodConfig", {"target_modules": ["q_proj"]}),
    ("LilyConfig", {"target_modules": ["q_proj"], "r": 4}),
    ("PolyConfig", {"target_modules": list(QV), "r": 4}),
    ("BeftConfig", {"target_modules": list(QV)}),
    ("PromptTuningConfig", {"num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}),
    ("PromptEncoderConfig", {"num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}),
    ("PrefixTuningConfig", {"num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}),
    ("AdaptionPromptConfig", {"adapter_len": 4, "adapter_layers": 1, "task_type": "CAUSAL_LM"}),
    ("TrainableTokensConfig", {"token_indices": [1, 2]}),
)

#: Types that replace what the base has, which is compared where it is at hand.
REPLACING = (
    ("LNTuningConfig", {"target_modules": ["input_layernorm"]}),
    ("TrainableTokensConfig", {"token_indices": [1, 2]}),
)
