"""Licences of bases by their ids, and of texts by how they begin."""

from __future__ import annotations

import pytest

from adapterscan.provenance.licences import is_free, licence_of, terms_of


@pytest.mark.parametrize(
    ("base", "licence"),
    [
        ("meta-llama/Llama-2-7b-hf", "llama2"), ("codellama/CodeLlama-7b-hf", "llama2"),
        ("meta-llama/Llama-3.2-1B", "llama3"), ("unsloth/llama-3-8b-bnb-4bit", "llama3"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "llama3"), ("google/gemma-2-2b", "gemma"),
        ("bigscience/bloom-560m", "bigscience-bloom-rail-1.0"),
        ("CohereForAI/aya-23-8B", "cc-by-nc-4.0"),
        ("black-forest-labs/FLUX.1-dev", "flux-1-dev-non-commercial-license"),
        ("runwayml/stable-diffusion-v1-5", "creativeml-openrail-m"),
        ("Qwen/Qwen2.5-3B-Instruct", "qwen-research"),
    ],
)  # fmt: skip
def test_a_base_with_terms_of_its_own_is_told_by_its_id(base: str, licence: str) -> None:
    terms = terms_of(base)
    assert terms is not None
    assert terms.licence == licence
    assert not is_free(licence)


@pytest.mark.parametrize(
    "base",
    [
        "Qwen/Qwen2.5-7B", "mistralai/Mistral-7B-v0.1", "google/flan-t5-base", "gpt2", "",
        "microsoft/phi-2", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "black-forest-labs/FLUX.1-schnell",
        "bigscience/mt0-large", "google/gemma-4-e2b", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        "openlm-research/open_llama_3b", "[", "*",
    ],
)  # fmt: skip
def test_other_bases_have_no_terms_that_are_listed(base: str) -> None:
    assert terms_of(base) is None


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("  Apache License\n Version 2.0, January 2004\n … MIT License", "apache-2.0"),
        ("MIT License\n\nCopyright (c) 2024", "mit"),
        ("Permission is hereby granted, free of charge, to any person", "mit"),
        ("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT", "llama3.1"),
        ("META LLAMA 3 COMMUNITY LICENSE AGREEMENT", "llama3"),
        ("Gemma Terms of Use", "gemma"),
        ("Creative Commons Attribution-NonCommercial 4.0 International", "cc-by-nc-4.0"),
        ("All rights reserved.", ""), ("", ""), ("x" * 100_000, ""),
    ],
)  # fmt: skip
def test_a_text_is_told_by_how_it_begins(text: str, licence: str) -> None:
    assert licence_of(text) == licence
