"""The committed fixtures are what their code writes: small, described, as valid as they claim."""

from __future__ import annotations

import pickletools
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from fixtures import temporary
from fixtures.build import ADAPTERS, HERE, SUMS, build, cards, differences, main, sums
from fixtures.folder import REGISTRY, WEIGHTS
from fixtures.weights import encode

NAMES = sorted(REGISTRY)
CARDS = tomllib.loads((HERE / "cards.toml").read_text(encoding="utf-8"))
OPENS = [name for name in NAMES if CARDS[name].get("opens") is True]
REFUSED = [name for name in NAMES if CARDS[name].get("opens") is False]
PICKLES = sorted(
    path for path in (HERE / ADAPTERS).rglob("*") if path.suffix in (".bin", ".pt", ".pth")
)


def test_committed_fixtures_are_regenerated_byte_for_byte(tmp_path: Path) -> None:
    build(tmp_path)
    assert list(differences(HERE, tmp_path)) == []
    assert sums(tmp_path) == (HERE / SUMS).read_text(encoding="utf-8")


def test_two_builds_are_equal(tmp_path: Path) -> None:
    build(tmp_path / "one", ["benign-qv"])
    build(tmp_path / "two", ["benign-qv"])
    assert sums(tmp_path / "one") == sums(tmp_path / "two")


def test_check_fails_readably_when_a_byte_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(tmp_path, ["base-null"])
    (tmp_path / ADAPTERS / "base-null" / "README.md").write_text("changed\n", encoding="utf-8")
    assert main(["--check", "--only", "base-null", "--to", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert "differs: adapters/base-null/README.md" in output
    assert "-changed" in output


def test_check_passes_on_an_untouched_fixture(tmp_path: Path) -> None:
    build(tmp_path, ["base-null"])
    assert main(["--check", "--only", "base-null", "--to", str(tmp_path)]) == 0


def test_check_names_missing_and_unexpected_files(tmp_path: Path) -> None:
    build(tmp_path / "old", ["base-null"])
    build(tmp_path / "new", ["base-null"])
    (tmp_path / "old" / ADAPTERS / "base-null" / "README.md").rename(
        tmp_path / "old" / ADAPTERS / "base-null" / "extra.md"
    )
    found = list(differences(tmp_path / "old", tmp_path / "new"))
    assert "missing: adapters/base-null/README.md" in found
    assert "unexpected: adapters/base-null/extra.md" in found


def test_every_fixture_has_a_complete_card() -> None:
    assert sorted(CARDS) == NAMES
    assert all(
        card[key]
        for card in CARDS.values()
        for key in ("label", "what", "why", "source", "payload")
    )


def test_cards_file_is_what_the_registry_says() -> None:
    assert (HERE / "cards.toml").read_text(encoding="utf-8") == cards()


def test_there_is_a_folder_for_every_card_and_no_other() -> None:
    assert sorted(path.name for path in (HERE / ADAPTERS).iterdir()) == NAMES


def test_benign_fixtures_say_so_in_their_names_or_are_other_layouts() -> None:
    benign = {name for name in NAMES if CARDS[name]["label"] == "benign"}
    others = {
        "ia3",
        "prefix",
        "kohya",
        "diffusers-lora",
        "mlx",
        "default-adapter-name",
        "value-head",
    }
    assert {name for name in benign if not name.startswith("benign")} == others


def test_each_fixture_is_small() -> None:
    sizes = {
        name: sum(p.stat().st_size for p in (HERE / ADAPTERS / name).rglob("*") if p.is_file())
        for name in NAMES
    }
    assert {name: size for name, size in sizes.items() if size > 300_000} == {}
    assert sum(sizes.values()) < 4_000_000


@pytest.mark.parametrize("name", OPENS)
def test_the_reference_parser_opens_what_the_card_says_opens(name: str) -> None:
    with safe_open(HERE / ADAPTERS / name / WEIGHTS, framework="numpy") as weights:
        shapes = [weights.get_slice(key).get_shape() for key in weights.keys()]  # noqa: SIM118
    assert bool(shapes) == (name != "no-tensors")


@pytest.mark.parametrize("name", REFUSED)
def test_the_reference_parser_refuses_what_the_card_says_it_refuses(name: str) -> None:
    with pytest.raises(SafetensorError):
        safe_open(HERE / ADAPTERS / name / WEIGHTS, framework="numpy")


def test_float32_weights_are_finite_and_look_trained() -> None:
    weights = load_file(HERE / ADAPTERS / "benign-qv" / WEIGHTS)
    b = weights["base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"]
    norms = np.linalg.norm(b.astype(np.float64), axis=0)
    assert all(np.isfinite(value).all() for value in weights.values())
    assert norms[0] > norms[-1] > 0


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (1.0, 0x3F80),
        (1.00390625, 0x3F80),  # a tie goes to the even neighbour below
        (1.01171875, 0x3F82),  # and to the even neighbour above
        (-0.0, 0x8000),
        (float("inf"), 0x7F80),
        (float("nan"), 0x7FC0),
    ],
)
def test_bfloat16_rounds_to_nearest_even(value: float, bits: int) -> None:
    assert encode(np.asarray([value])).data == bits.to_bytes(2, "little")


@pytest.mark.parametrize("path", PICKLES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_pickles_disassemble_up_to_their_defect(path: Path) -> None:
    data = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            data = archive.read(f"{path.stem}/data.pkl")
    names: list[str] = []
    try:
        names.extend(opcode.name for opcode, _, _ in pickletools.genops(data))
    except ValueError:
        assert path.parent.name == "pickle-call-then-garbage"
    assert ("STOP" in names) == (path.parent.name != "pickle-call-then-garbage")


def test_seven_b_shape_has_its_tensors_and_opens(tmp_path: Path) -> None:
    temporary.seven_b_shaped(tmp_path, rank=4, layers=2)
    with safe_open(tmp_path / WEIGHTS, framework="numpy") as weights:
        shapes = {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118
    assert len(shapes) == 2 * 7 * 2
    assert shapes["base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"] == [4, 11008]


def test_seventy_b_shape_has_narrow_keys(tmp_path: Path) -> None:
    temporary.llama70b_shaped(tmp_path, rank=1, layers=1)
    with safe_open(tmp_path / WEIGHTS, framework="numpy") as weights:
        key = "base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight"
        assert weights.get_slice(key).get_shape() == [1024, 1]


def test_million_tensors_opens_with_its_count(tmp_path: Path) -> None:
    temporary.million_tensors(tmp_path, count=1000)
    with safe_open(tmp_path / WEIGHTS, framework="numpy") as weights:
        assert len(weights.keys()) == 1000


def test_stuffed_metadata_has_its_size(tmp_path: Path) -> None:
    temporary.metadata_99mb(tmp_path, size=1_000_000)
    assert 1_000_000 < (tmp_path / WEIGHTS).stat().st_size < 1_020_000
    with safe_open(tmp_path / WEIGHTS, framework="numpy") as weights:
        assert len(weights.metadata()["notes"]) == 1_000_000
