"""Names that could be taken for known ones, and honest ones that must not be."""

from __future__ import annotations

import pytest

from adapterscan.provenance.known import bases, organisations
from adapterscan.provenance.lookalikes import (
    distance,
    like_id,
    like_owner,
    same_model,
    skeleton,
)

LOOKALIKES = {
    "letters": "мeta-llama metа-llama Qwеn Ｑｗｅｎ meta‑llama meta-llama\u200b",
    "shapes": "meta-Ilama meta-1lama Qvven TheBIoke TheB1oke rnistralai mistra1ai g00gle googIe "
    "rnicrosoft micros0ft deepseek-al openal 0penai nvldia unsIoth EleutherAl faceb00k",
    "separators": "meta_llama metallama meta.llama mistral-ai deepseekai",
    "one edit": "meta-lama meta-llamas TheBlocke mistralia mstralai gogle microsfot depseek-ai "
    "hugginface nvidiaa unslooth facebok tiiuea NousResaerch",
    "added word": "official-meta-llama meta-llama-official qwen-team google-releases",
}
#: Owners on the hub and elsewhere that are not listed: what this does to a larger sample is in
#: docs/provenance.md.
HONEST = """DefiLlama run-llama ollama hiyouga SciSharp withcatai llamafarm georgian-io malteos
AguLeon MathieuNlp catundchat cloneofsimo deepbiolab hyper07 iopenattheclose tommyroar wujindou
wyek1n sgugger nielsr uclanlp shi-labs PekingU dandelin kakaobrain studio-ousia camembert almanac
mosaic gemini bloom phi llama lora meta qwerty quentin mistress openchatai unsolved""".split()


@pytest.mark.parametrize(("how", "names"), LOOKALIKES.items())
def test_a_lookalike_is_told_with_how_it_resembles(how: str, names: str) -> None:
    found = {name: like_owner(name) for name in names.split(" ")}
    assert {name: alike and alike.how for name, alike in found.items()} == dict.fromkeys(found, how)


@pytest.mark.parametrize("name", organisations())
def test_a_known_owner_resembles_nobody_however_it_is_cased(name: str) -> None:
    assert like_owner(name) is None
    assert like_owner(name.upper()) is None


def test_honest_names_resemble_nobody() -> None:
    assert {name: like_owner(name) for name in HONEST} == dict.fromkeys(HONEST)


def test_a_short_name_needs_a_known_model_to_be_taken_for_another() -> None:
    assert like_owner("Qwem") is None
    found = like_id("Qwem/Qwen2.5-7B-Instruct")
    assert found is not None
    assert (found.owner.known, found.model) == ("Qwen", "Qwen/Qwen2.5-7B-Instruct")


@pytest.mark.parametrize("name", bases())
def test_a_known_base_resembles_no_other(name: str) -> None:
    assert like_id(name) is None
    assert same_model(name) == ""


def test_a_copy_by_another_owner_is_told_by_its_name() -> None:
    assert same_model("someone/Llama-3.1-8B") == "meta-llama/Llama-3.1-8B"
    assert same_model("someone/my-own-model") == ""


def test_another_number_is_another_name() -> None:
    assert like_owner("h3oai") is None


@pytest.mark.parametrize("text", ["", "/", "gpt2", "a/", "/b", "x" * 5_000, "x" * 900 + "/" + "y"])
def test_odd_ids_resemble_nobody(text: str) -> None:
    assert like_id(text) is None
    assert same_model(text) == ""


def test_skeletons_of_what_looks_alike_are_equal() -> None:
    assert skeleton("meta-llama") == skeleton("Мeta_Ilarna".replace("rn", "m"))


@pytest.mark.parametrize(
    ("one", "other", "edits"),
    [("abc", "abc", 0), ("abc", "acb", 1), ("abc", "ab", 1), ("abc", "xbz", 2), ("abc", "xyz", 3)],
)
def test_a_swap_of_neighbours_is_one_edit(one: str, other: str, edits: int) -> None:
    assert distance(one, other, 2) == distance(other, one, 2) == edits
