"""The ways to make an adapter of those tuners of PEFT whose ΔW depends on the weight."""

import peft

from tests.oracle.variants import QV, Variant

_PLAIN = {"target_modules": list(QV), "init_weights": False}


def _of(name, make, base="llama", size=0.3, **config):
    return Variant(name, base, config, make=make, size=size)


TRANSFORMS = (
    _of("IA3", peft.IA3Config, target_modules=["k_proj", "down_proj"],
        feedforward_modules=["down_proj"], init_ia3_weights=False),
    _of("IA3, Conv1D", peft.IA3Config, "gpt2", target_modules=["c_attn", "mlp.c_proj"],
        feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True),
    _of("OFT", peft.OFTConfig, **_PLAIN, oft_block_size=8),
    _of("OFT, Cayley", peft.OFTConfig, **_PLAIN, oft_block_size=4, use_cayley_neumann=False),
    _of("OFT, short series", peft.OFTConfig, **_PLAIN, oft_block_size=4,
        num_cayley_neumann_terms=3),
    _of("OFT, long series", peft.OFTConfig, **_PLAIN, oft_block_size=4,
        num_cayley_neumann_terms=8),
    _of("OFT, shared", peft.OFTConfig, **_PLAIN, oft_block_size=8, block_share=True),
    _of("OFT in a ball", peft.OFTConfig, **_PLAIN, oft_block_size=8, coft=True, eps=2.0),
    _of("OFT by number of blocks", peft.OFTConfig, **_PLAIN, r=2, oft_block_size=0),
    _of("BOFT", peft.BOFTConfig, **_PLAIN, boft_block_size=4),
    _of("HRA", peft.HRAConfig, **_PLAIN, r=4),
    _of("HRA, orthogonal", peft.HRAConfig, **_PLAIN, r=3, apply_GS=True),
    _of("HiRA", peft.HiraConfig, **_PLAIN, r=3),
    _of("HiRA, Conv1D", peft.HiraConfig, "gpt2", target_modules=["c_attn", "c_fc"],
        fan_in_fan_out=True, r=3, init_weights=False),
    _of("HiRA, embedding", peft.HiraConfig, target_modules=["embed_tokens"], r=3,
        init_weights=False),
    _of("RoAd 1", peft.RoadConfig, **_PLAIN, group_size=8),
    _of("RoAd 2", peft.RoadConfig, **_PLAIN, group_size=8, variant="road_2"),
    _of("RoAd 4", peft.RoadConfig, **_PLAIN, group_size=4, variant="road_4"),
    _of("GLoRA", peft.GloraConfig, **_PLAIN, r=3),
    _of("GLoRA by vectors", peft.GloraConfig, **_PLAIN, config_A_B="vector"),
    _of("GLoRA by numbers", peft.GloraConfig, **_PLAIN, config_A_B="constant"),
    _of("MiSS", peft.MissConfig, **_PLAIN, r=4),
    _of("MiSS with a remainder", peft.MissConfig, **_PLAIN, r=5),
    _of("MiSS, mini", peft.MissConfig, target_modules=list(QV), r=4, mini_r=2,
        init_weights="mini"),
    _of("MiSS, bat", peft.MissConfig, target_modules=list(QV), r=4, init_weights="bat"),
    _of("RandLoRA", peft.RandLoraConfig, target_modules=["q_proj", "v_proj", "down_proj"], r=4,
        init_weights=False),
    _of("SuperTuning", peft.SupertuningConfig, target_modules=list(QV), sparsity=0.9),
    _of("DEFT", peft.DeftConfig, **_PLAIN, r=3),
    _of("DEFT, scaled", peft.DeftConfig, **_PLAIN, r=3, alpha=6, decomposition_method="qr"),
    _of("DEFT, removing only", peft.DeftConfig, **_PLAIN, r=3, para=True),
    _of("FourierFT", peft.FourierFTConfig, target_modules=list(QV), n_frequency=20,
        init_weights=False),
    _of("WaveFT", peft.WaveFTConfig, target_modules=list(QV), n_frequency=40, init_weights=False),
    _of("WaveFT without a transform", peft.WaveFTConfig, target_modules=list(QV), n_frequency=40,
        use_idwt=False, scaling=3.0, init_weights=False),
    _of("WaveFT, odd sides", peft.WaveFTConfig, "Odd", target_modules=["one"], n_frequency=60,
        init_weights=False),
    _of("FourierFT, another seed", peft.FourierFTConfig, target_modules=list(QV), n_frequency=30,
        random_loc_seed=5, scaling=20.0, init_weights=False),
)  # fmt: skip
