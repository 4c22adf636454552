"""What PEFT 0.21.2 calls things: config fields and the key segments of each tuner's parameters.

Read from PEFT's sources and from the keys that about 75 configurations saved. A key belongs to the
tuner when one of its dot-separated segments is in the tuner's `PARTS`.
"""

from __future__ import annotations

from collections.abc import Mapping

COMMON_FIELDS = frozenset(
    "peft_type auto_mapping base_model_name_or_path revision task_type inference_mode peft_version "
    "target_modules exclude_modules modules_to_save layers_to_transform layers_pattern bias "
    "fan_in_fan_out init_weights runtime_config".split()
)

_LORA_FIELDS = frozenset(
    "alora_invocation_tokens alpha_pattern arrow_config corda_config ensure_weight_tying "
    "eva_config init_lora_weights kasa_config layer_replication loftq_config lora_alpha lora_bias "
    "lora_dropout lora_ga_config megatron_config megatron_core monteclora_config "
    "qalora_group_size r rank_pattern target_parameters trainable_token_indices use_bdlora "
    "use_dora use_qalora use_rslora velora_config "
    # older releases
    "enable_lora merge_weights use_gdora".split()
)

#: Fields beyond the common ones, for the tuners whose configs we check field by field.
FIELDS: Mapping[str, frozenset[str]] = {"LORA": _LORA_FIELDS}

_LORA_PARTS = (
    "lora_A lora_B lora_embedding_A lora_embedding_B lora_magnitude_vector lora_diag "
    "lora_velora_embed lora_monteclora_sampler trainable_tokens_delta"
)

PARTS: Mapping[str, frozenset[str]] = {
    kind: frozenset(parts.split())
    for kind, parts in {
        "LORA": _LORA_PARTS,
        "ADALORA": "lora_A lora_B lora_E ranknum lora_embedding_A lora_embedding_B",
        "ADAMSS": "adamss_A adamss_B adamss_resW adamss_newB adamss_newindex",
        "ADAPTION_PROMPT": "adaption_prompt adaption_gate",
        "BEFT": "beft_bias",
        "BOFT": "boft_R boft_s boft_P",
        "C3A": "c3a_kernel",
        "CARTRIDGE": "prompt_embeddings",
        "CPT": "prompt_embeddings",
        "DEFT": "deft_P deft_R deft_para",
        "DELORA": "delora_A delora_B delora_lambda delora_w_norm",
        "FOURIERFT": "fourierft_spectrum",
        "FROD": "frod_V frod_s_indices frod_s_size frod_lambda_l frod_lambda_s_values",
        "GLORA": "glora_A glora_B glora_C glora_D glora_E",
        "GRALORA": "gralora_A gralora_B gralora_A_general gralora_B_general",
        "HIRA": "hira_A hira_B hira_embedding_A hira_embedding_B",
        "HRA": "hra_u",
        "IA3": "ia3_l",
        "LILY": "lily_A lily_B lily_router",
        "LN_TUNING": "ln_tuning_layers",
        "LOHA": "hada_w1_a hada_w1_b hada_w2_a hada_w2_b hada_t1 hada_t2",
        "LOKR": "lokr_w1 lokr_w1_a lokr_w1_b lokr_w2 lokr_w2_a lokr_w2_b lokr_t2",
        "MISS": "miss_block",
        "MULTITASK_PROMPT_TUNING": "prompt_embeddings prefix_task_cols prefix_task_rows",
        "OFT": "oft_R oft_r oft_embedding_R",
        "OSF": "osf_svd_params U_low S_low V_low",
        "PEANUT": "peanut_A peanut_B peanut_encoders peanut_decoders",
        "POLY": "poly_lora_A poly_lora_B poly_router",
        "PREFIX_TUNING": "prompt_embeddings",
        "PROMPT_TUNING": "prompt_embeddings",
        "PSOFT": "psoft_R",
        "PVERA": "pvera_lambda_b pvera_lambda_d pvera_A pvera_B",
        "P_TUNING": "prompt_embeddings",
        "RANDLORA": "randlora_A randlora_B randlora_lambda randlora_gamma",
        "ROAD": "road_theta road_alpha",
        "SHADOW": "shadow_down shadow_up shadow_update_gate shadow_update_transform shadow_model",
        "SHIRA": "shira_weight shira_indices",
        "SUPERTUNING": "supertuning_indices supertuning_values supertuning_lora_A "
        "supertuning_lora_B",
        "TINYLORA": "tinylora_v tinylora_A tinylora_B tinylora_P",
        "TRAINABLE_TOKENS": "trainable_tokens_delta",
        "UNILORA": "unilora_theta_d unilora_indices_A unilora_indices_B unilora_scales_A "
        "unilora_scales_B",
        "VBLORA": "vblora_vector_bank vblora_logits_A vblora_logits_B vblora_logits_A_topk_indices "
        "vblora_logits_A_topk_weights vblora_logits_B_topk_indices vblora_logits_B_topk_weights",
        "VERA": "vera_lambda_b vera_lambda_d vera_A vera_B",
        "WAVEFT": "waveft_spectrum",
        "XLORA": _LORA_PARTS + " internal_xlora_classifier xlora_classifier",
    }.items()
}

#: Types whose `prompt_embeddings` are vectors in the space of tokens.
SOFT_PROMPTS = frozenset({"CPT", "PROMPT_TUNING", "P_TUNING"})

#: Types without a ΔW that follows from the file and the base, and what they do instead.
NO_DELTA: Mapping[str, str] = {
    "ADAMSS": "keeps ΔW in subspaces of the weight that were clustered when it was made",
    "ADAPTION_PROMPT": "adds learned prompts inside of attention layers: no ΔW",
    "ARROW": "chooses among adapters by the input: no static ΔW",
    "BEFT": "adds to biases: no ΔW of a weight",
    "CARTRIDGE": "puts keys and values of virtual tokens before every prompt: no ΔW",
    "CPT": "puts virtual tokens before every prompt, a hidden prefix: no ΔW",
    "FROD": "replaces weights by ones in a basis that was made of the base's",
    "LILY": "mixes its factors by the input: no static ΔW",
    "LN_TUNING": "replaces whole layers, mostly norms",
    "MULTITASK_PROMPT_TUNING": "puts virtual tokens before every prompt, a hidden prefix: no ΔW",
    "OSF": "replaces the weak singular directions of weights",
    "PEANUT": "adds a network's function of the weight",
    "POLY": "mixes skills by the task that is asked for: no static ΔW",
    "PREFIX_TUNING": "puts keys and values of virtual tokens before every prompt: no ΔW",
    "PROMPT_TUNING": "puts virtual tokens before every prompt, a hidden prefix: no ΔW",
    "PSOFT": "turns the strong singular directions of weights, whose signs are no part of the file",
    "P_TUNING": "puts virtual tokens before every prompt, a hidden prefix: no ΔW",
    "SHADOW": "runs a network of its own beside the base: no static ΔW",
    "TRAINABLE_TOKENS": "replaces embeddings of single tokens",
    "XLORA": "mixes other adapters by the input: no static ΔW",
}

#: Of these, what is compared whole where the base is at hand.
COMPARED_WHOLE = frozenset({"LN_TUNING", "TRAINABLE_TOKENS"})

#: Parts that hold rows of an embedding.
TOKEN_PARTS = frozenset({"trainable_tokens_delta"})

ALL_PARTS = frozenset[str]().union(*PARTS.values())

#: Heads that PEFT saves by itself for a task, whether or not the config names them.
TASK_HEADS: Mapping[str, tuple[str, ...]] = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}

#: Names of input and output embeddings (PEFT's EMBEDDING_LAYER_NAMES and other families' names).
INPUT_EMBEDDINGS = frozenset(
    {"embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings"}
)
OUTPUT_EMBEDDINGS = frozenset({"lm_head", "embed_out"})

#: Parameters and buffers that stand at the root of a model, without a module's name before them:
#: what the models of transformers 5.23 register on a `PreTrainedModel` itself.
ROOT_PARAMETERS = frozenset(
    "audio_plus_text_logit_bias audio_plus_text_logit_scale audio_video_logit_bias "
    "audio_video_logit_scale bos_latent class_embedding class_pos_emb cls_token "
    "column_output_bias column_output_weights esm_s_combine high_res_vision_alpha image_newline "
    "input_hidden_states_bias input_hidden_states_scale label_embeddings_concat "
    "latent_bias_factor latent_scaling_factor latents layer_weights level_embed logit_bias "
    "logit_scale logit_scale_a logit_scale_t mask_emb mask_token masked_spec_embed "
    "memory_temporal_positional_encoding no_memory_embedding no_memory_positional_encoding "
    "no_object_pointer occlusion_spatial_embedding_parameter output_bias output_weights "
    "pos_emb_alpha pos_emb_alpha_char pos_embed pos_embed_window positional_embedding "
    "positional_embedding_vlm prompts_visual_projection query_tokens reg_scale segmentation_bias "
    "silence_embeds temperature text_audio_logit_bias text_audio_logit_scale "
    "text_audio_video_logit_bias text_audio_video_logit_scale text_prompt text_video_logit_bias "
    "text_video_logit_scale up video_plus_text_logit_bias video_plus_text_logit_scale "
    "view_separator visual_segment_embedding z_L_init".split()
)
