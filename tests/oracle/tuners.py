"""The ways to make an adapter of PEFT's other tuners, whose ΔW is known without the base."""

import peft

from tests.oracle.variants import ATTENTION, QV, Variant

_PLAIN = {"target_modules": list(QV), "init_weights": False}
_CONVOLUTIONS = {"target_modules": ["one", "two"], "init_weights": False}
_PLANE = _CONVOLUTIONS | {"target_modules": ["two"]}
_RANKS = {
    "target_modules": list(ATTENTION), "init_weights": False,
    "rank_pattern": {r"layers\.0\..*q_proj": 2, ".*v_proj": 3},
    "alpha_pattern": {r"layers\.1\..*": 5, "k_proj": 9},
}  # fmt: skip


def _of(name, make, base="llama", **config):
    # large enough for what float32 leaves of a ΔW beside W
    return Variant(name, base, config, make=make, size=0.5)


TUNERS = (
    _of("LoHa", peft.LoHaConfig, **_PLAIN, r=3, alpha=5),
    _of("LoHa with patterns", peft.LoHaConfig, **_RANKS, r=4),
    _of("LoHa, convolutions", peft.LoHaConfig, "Convolutions", **_CONVOLUTIONS, r=3),
    _of(
        "LoHa, effective convolutions", peft.LoHaConfig, "Convolutions", **_CONVOLUTIONS, r=3,
        use_effective_conv2d=True,
    ),
    _of("LoKr", peft.LoKrConfig, **_PLAIN, r=2, alpha=5),
    _of("LoKr with patterns", peft.LoKrConfig, **_RANKS, r=2),
    _of("LoKr, both decomposed", peft.LoKrConfig, **_PLAIN, r=1, decompose_both=True),
    _of("LoKr, whole", peft.LoKrConfig, **_PLAIN, r=30, alpha=9),
    _of("LoKr, factor 2", peft.LoKrConfig, **_PLAIN, r=3, decompose_factor=2),
    _of("LoKr, convolution", peft.LoKrConfig, "Convolutions",
        **_PLANE, r=1),
    _of("LoKr, whole convolution", peft.LoKrConfig, "Convolutions",
        **_PLANE, r=20),
    _of(
        "LoKr, effective convolutions", peft.LoKrConfig, "Convolutions", **_PLANE, r=1,
        use_effective_conv2d=True,
    ),
    _of("VeRA", peft.VeraConfig, target_modules=["q_proj", "v_proj"], init_weights=False, r=5),
    _of("PVeRA", peft.PveraConfig, target_modules=["q_proj", "v_proj"], init_weights=False, r=5),
    _of("DeLoRA", peft.DeloraConfig, **_PLAIN, r=3),
    _of("GraLoRA", peft.GraloraConfig, **_PLAIN, r=4, gralora_k=2, alpha=7),
    _of("GraLoRA, hybrid", peft.GraloraConfig, **_PLAIN, r=8, gralora_k=4, hybrid_r=3),
    _of("VB-LoRA", peft.VBLoRAConfig, target_modules=list(QV), r=3, num_vectors=10,
        vector_length=4, topk=3),
    _of("VB-LoRA, choices only", peft.VBLoRAConfig, target_modules=list(QV), r=3, num_vectors=10,
        vector_length=4, topk=3, save_only_topk_weights=True),
    _of("Uni-LoRA with indices", peft.UniLoraConfig, target_modules=list(QV), r=3,
        theta_d_length=20, save_indices=True),
    _of("TinyLoRA, one vector", peft.TinyLoraConfig, target_modules=list(QV), r=2, u=5,
        weight_tying=1.0),
    _of("C3A", peft.C3AConfig, target_modules=list(QV), block_size=8, init_weights=False),
    _of("C3A with patterns", peft.C3AConfig, target_modules=list(QV), block_size=8,
        block_size_pattern={"v_proj": 4}, init_weights=False),
    _of("SHiRA", peft.ShiraConfig, target_modules=list(QV), r=2, init_weights=False),
)  # fmt: skip
