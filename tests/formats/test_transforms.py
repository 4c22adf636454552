"""Tuners whose ΔW depends on the weight: against dense formulas, and what does not fit.

`make oracle` holds all of them against PEFT's merge.
"""

import contextlib

import numpy as np
import pytest

from adapterscan.formats.accounting import Role
from adapterscan.formats.transforms import BY_KIND, METHODS
from adapterscan.updates.harmonic import drawn
from tests.formats.test_tuners import ROOT, SHAPES, Q, built, normal

OUT, IN = 8, 12
RNG = np.random.default_rng(3)


class Held:
    """A weight in memory, read three rows at a time."""

    def __init__(self, values):
        self.values = values
        self.shape = values.shape

    def blocks(self, elements=0):
        del elements
        return ((at, self.values[at : at + 3]) for at in range(0, len(self.values), 3))

    def rows(self, start, stop):
        return self.values[start:stop]


W = Held(normal(OUT, IN))


def unflawed(count, high):
    return np.sort(RNG.permutation(high)[:count]).astype(np.int32)


HONEST = {
    "BOFT": ({f"{Q}.boft_R": normal(1, 3, 4, 4), f"{Q}.boft_s": normal(OUT, 1)}, ""),
    "DEFT": ({f"{Q}.deft_P": normal(OUT, 2), f"{Q}.deft_R": normal(2, IN)}, ""),
    "FOURIERFT": ({f"{Q}.fourierft_spectrum": normal(5)}, ""),
    "GLORA": (
        {
            f"{Q}.glora_{letter}.{leaf}": value
            for letter in "AB"
            for leaf, value in {"Xd": normal(OUT, 2), "Xu": normal(2, IN)}.items()
        },
        "",
    ),
    "HIRA": ({f"{Q}.hira_A": normal(2, IN), f"{Q}.hira_B": normal(OUT, 2)}, ""),
    "HRA": ({f"{Q}.hra_u": normal(IN, 3)}, ""),
    "IA3": ({f"{Q}.ia3_l": normal(OUT, 1)}, ""),
    "MISS": ({f"{Q}.miss_block": normal(5, OUT)}, ""),
    "OFT": ({f"{Q}.oft_R.weight": normal(3, 6)}, ""),
    "RANDLORA": (
        {
            f"{ROOT}randlora_A": normal(3, 1, 20), f"{ROOT}randlora_B": normal(30, 5, 3),
            f"{Q}.randlora_lambda": normal(3, 3), f"{Q}.randlora_gamma": normal(3, OUT),
        },
        "",
    ),
    "ROAD": ({f"{Q}.road_theta": normal(4), f"{Q}.road_alpha": normal(4)}, '"group_size": 4'),
    "SUPERTUNING": (
        {f"{Q}.supertuning_indices": unflawed(6, OUT * IN), f"{Q}.supertuning_values": normal(6)},
        "",
    ),
}  # fmt: skip


HONEST["WAVEFT"] = ({f"{Q}.waveft_spectrum": normal(5)}, "")


def located(kind, tensors, config=""):
    """Return the only transform of an adapter and its arrays, or the defects of one without."""
    made, data = built(kind, tensors, config)
    if made.problems:
        assert not made.transforms
        return {found.defect for found in made.problems}
    (item,) = made.transforms
    names = {"F32": "<f4", "I32": "<i4", "F64": "<f8", "I64": "<i8"}
    arrays = [
        np.frombuffer(data[t.start, t.nbytes], names[t.dtype]).reshape(t.shape)
        for t in item.tensors
    ]
    return item, arrays


def dense(kind, tensors, config="", weight=W):
    """Return ΔW of the only module of an adapter."""
    item, arrays = located(kind, tensors, config)
    change = BY_KIND[kind.lower()].change(item, arrays, weight)
    if callable(change):
        return np.concatenate([change(*some) for some in weight.blocks()])
    return change.rows(0, weight.shape[0])


def strength(kind, tensors, config=""):
    """Return what is said without the weight."""
    return BY_KIND[kind.lower()].strength(*located(kind, tensors, config))


def test_every_method_has_an_honest_example():
    assert HONEST.keys() == METHODS.keys()
    assert {method.kind for method in METHODS.values()} == BY_KIND.keys()


@pytest.mark.parametrize("kind", METHODS)
def test_an_honest_one_has_a_change_and_all_tensors_are_accounted_for(kind):
    tensors, config = HONEST[kind]
    made, _ = built(kind, tensors, config)
    assert {item.role for item in made.accounted} == {Role.ADAPTER}
    found = dense(kind, tensors, config)
    assert found.shape == W.shape
    assert np.linalg.norm(found) > 0


def test_ia3_scales_rows_or_columns():
    rows, columns = normal(OUT, 1), normal(1, IN)
    np.testing.assert_allclose(dense("IA3", {f"{Q}.ia3_l": rows}), W.values * (rows - 1), rtol=1e-6)
    np.testing.assert_allclose(
        dense("IA3", {f"{Q}.ia3_l": columns}), W.values * (columns - 1), rtol=1e-6
    )


def test_a_rotation_keeps_the_length_of_rows():
    for kind, tensors, config in (
        ("OFT", HONEST["OFT"][0], '"use_cayley_neumann": false'),
        ("BOFT", {**HONEST["BOFT"][0], f"{Q}.boft_s": np.ones((OUT, 1), np.float32)}, ""),
        ("HRA", HONEST["HRA"][0], ""),
        ("HRA", HONEST["HRA"][0], '"apply_GS": true'),
    ):
        merged = W.values + dense(kind, tensors, config)
        lengths = np.linalg.norm(W.values, axis=1)
        np.testing.assert_allclose(np.linalg.norm(merged, axis=1), lengths, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "tensors", "config"),
    [
        ("IA3", {f"{Q}.ia3_l": np.ones((OUT, 1), np.float32)}, ""),
        ("OFT", {f"{Q}.oft_R.weight": np.zeros((3, 6), np.float32)}, ""),
        ("OFT", {f"{Q}.oft_R.weight": np.zeros((3, 6), np.float32)}, '"coft": true'),
        ("HIRA", {**HONEST["HIRA"][0], f"{Q}.hira_B": np.zeros((OUT, 2), np.float32)}, ""),
        ("BOFT", {f"{Q}.boft_R": np.zeros((1, 3, 4, 4), np.float32),
                  f"{Q}.boft_s": np.ones((OUT, 1), np.float32)}, ""),
        ("ROAD", {f"{Q}.road_theta": np.zeros(4, np.float32),
                  f"{Q}.road_alpha": np.ones(4, np.float32)}, '"group_size": 4'),
    ],
)  # fmt: skip
def test_what_changes_nothing_measures_exactly_zero(kind, tensors, config):
    assert not dense(kind, tensors, config).any()
    assert strength(kind, tensors, config) == 0


@pytest.mark.parametrize("kind", ["IA3", "OFT", "BOFT", "HRA", "HIRA", "ROAD"])
def test_a_strength_is_what_the_change_of_a_random_weight_is(kind):
    tensors, config = HONEST[kind]
    small = {name: value * 0.3 for name, value in tensors.items()}
    weights = [Held(normal(OUT, IN)) for _ in range(300)]
    changed = sum(np.sum(np.square(dense(kind, small, config, w))) for w in weights)
    whole = sum(np.sum(np.square(w.values)) for w in weights)
    assert strength(kind, small, config) == pytest.approx((changed / whole) ** 0.5, rel=0.05)


@pytest.mark.parametrize("kind", METHODS)
def test_a_part_that_is_missing_is_a_problem_or_not_there(kind):
    tensors, config = HONEST[kind]
    for name in tensors:
        made, _ = built(kind, {k: v for k, v in tensors.items() if k != name}, config)
        assert not made.transforms
        assert {found.defect for found in made.problems} <= {"orphan", "unread"}


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_shape_in_any_place_is_a_problem_or_refused_or_numbers(kind, shape):
    tensors, config = HONEST[kind]
    for name, value in tensors.items():
        other = tensors | {name: np.zeros(shape, value.dtype)}
        if isinstance(located(kind, other, config), set):
            continue
        with contextlib.suppress(ValueError), np.errstate(all="ignore"):
            strength(kind, other, config)
        with contextlib.suppress(ValueError), np.errstate(all="ignore"):
            assert dense(kind, other, config).shape == W.shape


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("shape", [(7, 12), (8, 11), (12, 8), (1, 1), (16, 24)], ids=str)
def test_a_weight_of_another_shape_is_refused_or_fits_by_design(kind, shape):
    tensors, config = HONEST[kind]
    if kind not in ("DEFT", "GLORA", "HIRA"):
        shape = (1, 1)  # some sides of the weight are free for these
    with pytest.raises(ValueError, match=r"for a weight of|outside of"):
        dense(kind, tensors, config, Held(np.ones(shape, np.float32)))


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_no_numbers_do_not_look_like_nothing(kind, value):
    tensors, config = HONEST[kind]
    for name, honest in tensors.items():
        if honest.dtype != np.float32:
            continue
        other = tensors | {name: np.full_like(honest, value)}
        with np.errstate(all="ignore"):
            found, size = dense(kind, other, config), strength(kind, other, config)
        assert np.any(found != 0)
        assert size is None or size != 0


@pytest.mark.parametrize("kind", METHODS)
def test_two_tensors_in_one_place_are_ambiguous(kind):
    tensors, config = HONEST[kind]
    for name, value in tensors.items():
        stem, dot, leaf = name.rpartition(".")
        twin = f"{stem}.default{dot}{leaf}" if kind in ("OFT", "GLORA") else f"{name}.default"
        assert located(kind, {**tensors, twin: value}, config) == {"ambiguous"}


@pytest.mark.parametrize("kind", METHODS)
def test_a_name_that_nothing_saves_is_unmatched(kind):
    tensors, config = HONEST[kind]
    name = next(name for name in tensors if name.startswith(Q))
    made, _ = built(kind, {**tensors, f"{name}.odd.decoy": np.zeros(4, np.float32)}, config)
    assert [item.role for item in made.accounted].count(Role.UNMATCHED) == 1
    assert len(made.transforms) == 1


@pytest.mark.parametrize(
    ("kind", "tensors", "config", "defect"),
    [
        ("OFT", {f"{Q}.oft_R.weight": (1, 1025 * 512)}, "", "unread"),
        ("OFT", {f"{Q}.oft_R.weight": (5000, 523776)}, "", "unread"),
        ("OFT", {f"{Q}.oft_R.weight": (3, 5)}, "", "shape"),
        ("OFT", {f"{Q}.oft_R.weight": (3, 6)}, '"num_cayley_neumann_terms": 100000', "unread"),
        ("OFT", {f"{Q}.oft_R.weight": (3, 6)}, '"num_cayley_neumann_terms": "5"', "unread"),
        ("OFT", {f"{Q}.oft_R.weight": (3, 6)}, '"coft": true, "eps": "x"', "unread"),
        ("BOFT", {f"{Q}.boft_R": (1, 1, 2048, 2048), f"{Q}.boft_s": (8, 1)}, "", "unread"),
        ("BOFT", {f"{Q}.boft_R": (2, 3, 4, 4), f"{Q}.boft_s": (8, 1)}, "", "unread"),
        ("HRA", {f"{Q}.hra_u": (12, 1025)}, "", "unread"),
        ("HIRA", {f"{Q}.hira_A": (1025, 12), f"{Q}.hira_B": (8, 1025)}, "", "unread"),
        ("MISS", {f"{Q}.miss_block": (1025, 8)}, "", "unread"),
        ("MISS", {f"{Q}.miss_block": (5, 8)}, '"init_weights": "evil"', "unread"),
        ("ROAD", {f"{Q}.road_theta": (4,), f"{Q}.road_alpha": (4,)}, '"group_size": 0', "unread"),
        ("ROAD", {f"{Q}.road_theta": (4,), f"{Q}.road_alpha": (4,)}, '"variant": "x"', "unread"),
        ("FOURIERFT", {f"{Q}.fourierft_spectrum": (1 << 17,)}, "", "shape"),
        ("FOURIERFT", {f"{Q}.fourierft_spectrum": (5,)}, '"random_loc_seed": -1', "unread"),
        ("GLORA", {f"{Q}.glora_A.X": (8, 1), f"{Q}.glora_B.X": (8, 1)}, "", "ambiguous"),
        ("DEFT", {f"{Q}.deft_P": (8, 2), f"{Q}.deft_R": (2, 12)},
         '"decomposition_method": "svd"', "unread"),
        ("SUPERTUNING", {f"{Q}.supertuning_indices": (6,), f"{Q}.supertuning_values": (6,)},
         '"r": 4', "unread"),
    ],
)  # fmt: skip
def test_what_is_not_read_says_so(kind, tensors, config, defect):
    made, _ = built(kind, tensors, config)
    assert not made.transforms
    assert {found.defect for found in made.problems} == {defect}


def test_bases_that_are_repeated_with_other_values_are_refused():
    tensors, _ = HONEST["RANDLORA"]
    same = tensors | {f"{Q}.randlora_{x}": tensors[f"{ROOT}randlora_{x}"] for x in "AB"}
    assert dense("RANDLORA", same).shape == W.shape
    with pytest.raises(ValueError, match="other values"):
        dense("RANDLORA", same | {f"{Q}.randlora_A": normal(3, 1, 20)})


def test_an_empty_path_is_read_with_what_is_in_it():
    """The buffer is called zeros, and a loader takes any other values from the file."""
    tensors = {f"{Q}.glora_A.zeros": np.full((OUT, IN), 0.5, np.float32),
               f"{Q}.glora_B.zeros": np.zeros((OUT, IN), np.float32)}  # fmt: skip
    found = dense("GLORA", tensors, '"config_A_B": "none"')
    np.testing.assert_allclose(found, W.values * 0.5)


def test_fourier_is_the_inverse_transform_of_coefficients_at_drawn_places():
    tensors, _ = HONEST["FOURIERFT"]
    spectrum = np.zeros(OUT * IN)
    spectrum[drawn(OUT * IN, 5, 7)] = tensors[f"{Q}.fourierft_spectrum"]
    expected = 3.0 * np.fft.ifft2(spectrum.reshape(OUT, IN)).real
    found = dense("FOURIERFT", tensors, '"scaling": 3, "random_loc_seed": 7')
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_places_are_drawn_as_torch_draws_them():
    """Recorded from `torch.randperm(n, generator=torch.Generator().manual_seed(777))`."""
    assert drawn(1024, 4, 777).tolist() == [103, 249, 319, 701]
    assert drawn(1 << 20, 4, 777).tolist() == [325735, 902535, 477161, 185675]
    assert sorted(drawn(50, 50, 5).tolist()) == list(range(50))
    with pytest.raises(ValueError, match="not followed"):
        drawn(1 << 29, 4, 777)
