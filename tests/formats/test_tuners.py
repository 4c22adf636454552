"""PEFT's other tuners: which tensors make a ΔW, which do not, and what it costs to find out.

`make oracle` holds the values against PEFT; here they are held against the dense formulas.
"""

import contextlib

import numpy as np
import pytest

from adapterscan.formats.accounting import Role
from adapterscan.formats.config import read_config
from adapterscan.formats.peft import build_adapter
from adapterscan.formats.tensors import TensorInfo, WeightFile
from adapterscan.formats.tuners import BY_KIND, TUNERS
from adapterscan.together.side_by_side import Module
from adapterscan.weighing.factors import update_of, why_not

RNG = np.random.default_rng(11)
ROOT = "base_model."
Q = "base_model.model.model.layers.0.self_attn.q_proj"
DTYPES = {"float32": "F32", "float64": "F64", "int64": "I64", "int32": "I32", "uint8": "U8"}


def built(kind, tensors, config=""):
    """Build an adapter of arrays by name, or of shapes alone."""
    infos, data = [], {}
    for name, value in tensors.items():
        shape, dtype = (value, "F32") if isinstance(value, tuple) else (value.shape, "")
        size = 4 * int(np.prod(shape)) if dtype else value.nbytes
        start = sum(info.nbytes for info in infos)
        info = TensorInfo(name, dtype or DTYPES[str(value.dtype)], shape, start, size)
        infos.append(info)
        data[start, size] = b"" if dtype else value.tobytes()
    text = f'{{"peft_type": "{kind}"{", " if config else ""}{config}}}'
    weights = WeightFile("w", "safetensors", tuple(infos))
    return build_adapter("", read_config(text.encode(), "c"), weights), data


def dense(kind, tensors, config=""):
    """Return the only ΔW of an adapter as a matrix."""
    made, data = built(kind, tensors, config)
    assert not made.problems
    (delta,) = made.deltas
    assert {item.role for item in made.accounted} == {Role.ADAPTER}
    assert not why_not(delta)
    return update_of(delta, data).dense()


def problem(kind, tensors, config=""):
    """Return the defect of the only module of an adapter, which has no ΔW."""
    made, _ = built(kind, tensors, config)
    assert not made.deltas
    return {found.defect for found in made.problems}


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def loha(r=3, out=8, width=6):
    return {
        f"{Q}.hada_w1_a": normal(out, r), f"{Q}.hada_w1_b": normal(r, width),
        f"{Q}.hada_w2_a": normal(out, r), f"{Q}.hada_w2_b": normal(r, width),
    }  # fmt: skip


def vera(r=4, out=8, width=6, most=10):
    return {
        f"{ROOT}vera_A": normal(r, width), f"{ROOT}vera_B": normal(most, r),
        f"{Q}.vera_lambda_b": normal(out), f"{Q}.vera_lambda_d": normal(r),
    }  # fmt: skip


def delora(r=3, out=8, width=6):
    return {
        f"{Q}.delora_A": normal(r, width), f"{Q}.delora_B": normal(out, r),
        f"{Q}.delora_lambda": normal(1), f"{Q}.delora_w_norm": normal(width),
    }  # fmt: skip


def vblora(r=3, out=8, width=12, count=5, length=4):
    return {
        f"{ROOT}vblora_vector_bank": normal(count, length),
        f"{Q}.vblora_logits_A": normal(r, width // length, count),
        f"{Q}.vblora_logits_B": normal(out // length, r, count),
    }  # fmt: skip


def unilora(r=3, out=8, width=6, count=5):
    return {
        f"{ROOT}unilora_theta_d": normal(count),
        f"{Q}.unilora_indices_A": RNG.integers(0, count, (r, width)),
        f"{Q}.unilora_indices_B": RNG.integers(0, count, (out, r)),
        f"{Q}.unilora_scales_A": normal(r, width), f"{Q}.unilora_scales_B": normal(out, r),
    }  # fmt: skip


def tinylora(r=2, u=4, out=8, width=6):
    return {
        f"{Q}.tinylora_A": normal(r, width), f"{Q}.tinylora_B": normal(out, r),
        f"{Q}.tinylora_P": normal(u, r, r), f"{ROOT}tinylora_v.0": normal(u),
    }  # fmt: skip


def lokr():
    return {f"{Q}.lokr_w1": normal(4, 3), f"{Q}.lokr_w2_a": normal(5, 2),
            f"{Q}.lokr_w2_b": normal(2, 6)}  # fmt: skip


def gralora(k=2, r=4, out=8, width=6):
    return {f"{Q}.gralora_A": normal(k, width // k, r), f"{Q}.gralora_B": normal(k, r, out // k)}


def shira(count=9):
    places = RNG.integers(0, 6, (2, count)).astype(np.int32)
    return {f"{Q}.shira_indices": places, f"{Q}.shira_weight": normal(count)}


HONEST = {
    "C3A": ({f"{Q}.c3a_kernel": normal(2, 3, 4)}, ""),
    "DELORA": (delora(), ""),
    "GRALORA": (gralora(), ""),
    "LOHA": (loha(), ""),
    "LOKR": (lokr(), ""),
    "PVERA": (
        {name.replace("vera", "pvera"): value for name, value in vera(most=8).items()}
        | {f"{ROOT}pvera_A": normal(8, 6), f"{Q}.pvera_lambda_d": normal(8)},
        "",
    ),
    "SHIRA": (shira(), ""),
    "TINYLORA": (tinylora(), ""),
    "UNILORA": (unilora(), ""),
    "VBLORA": (vblora(), ""),
    "VERA": (vera(), ""),
}


def test_every_tuner_has_an_honest_example():
    assert HONEST.keys() == TUNERS.keys()
    assert {tuner.kind for tuner in TUNERS.values()} == BY_KIND.keys()


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ("", 8 / 3),
        ('"alpha": 6', 2.0),
        ('"alpha": 6, "lora_alpha": 99, "r": 64, "use_rslora": true', 2.0),
        ('"alpha": 6, "alpha_pattern": {"q_proj": -3}', -1.0),
        ('"alpha": 0', 0.0),
    ],
)
def test_loha_is_a_product_of_products_times_alpha_over_its_rank(config, scale):
    tensors = loha()
    w1a, w1b, w2a, w2b = tensors.values()
    expected = scale * (w1a @ w1b) * (w2a @ w2b)
    np.testing.assert_allclose(dense("LOHA", tensors, config), expected, rtol=1e-5, atol=1e-6)


def test_lokr_is_a_kronecker_product():
    tensors = lokr()
    w1, w2a, w2b = tensors.values()
    expected = 4.0 * np.kron(w1, w2a @ w2b)
    np.testing.assert_allclose(dense("LOKR", tensors), expected, rtol=1e-5, atol=1e-6)


def test_lokr_of_whole_matrices_is_scaled_by_the_rank_of_the_config():
    tensors = {f"{Q}.lokr_w1": normal(2, 3), f"{Q}.lokr_w2": normal(4, 2)}
    expected = 0.25 * np.kron(*tensors.values())
    found = dense("LOKR", tensors, '"alpha": 4, "r": 16')
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_vera_takes_the_rows_that_its_vector_has():
    tensors = vera()
    a, b, up, down = tensors.values()
    expected = (up[:, None] * b[:8]) @ (down[:, None] * a)
    np.testing.assert_allclose(dense("VERA", tensors), expected, rtol=1e-5, atol=1e-6)


def test_tinylora_mixes_its_middle():
    tensors = tinylora()
    a, b, basis, vector = tensors.values()
    expected = b @ np.einsum("u,uij->ij", vector, basis) @ a
    np.testing.assert_allclose(dense("TINYLORA", tensors), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", TUNERS)
def test_the_name_of_the_adapter_may_be_left_in(kind):
    tensors, config = HONEST[kind]
    infixed = {f"{name}.default": value for name, value in tensors.items()}
    np.testing.assert_array_equal(dense(kind, infixed, config), dense(kind, tensors, config))


@pytest.mark.parametrize("kind", TUNERS)
def test_a_part_that_is_missing_leaves_a_problem_and_no_crash(kind):
    tensors, config = HONEST[kind]
    for name in tensors:
        rest = {key: value for key, value in tensors.items() if key != name}
        made, _ = built(kind, rest, config)
        assert not made.deltas
        owned = any(key.startswith(Q) for key in rest)
        assert {found.defect for found in made.problems} <= {"orphan", "unread"}
        assert bool(made.problems) is owned


SHAPES = ((), (0,), (1,), (7,), (0, 0), (1, 1), (3, 0), (2, 5), (4, 2, 3), (0, 4, 4), (2, 2, 2, 2))


@pytest.mark.parametrize("kind", TUNERS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_shape_in_any_place_gives_a_problem_or_numbers(kind, shape):
    tensors, config = HONEST[kind]
    for name, value in tensors.items():
        made, data = built(kind, tensors | {name: np.zeros(shape, value.dtype)}, config)
        assert bool(made.deltas) != bool(made.problems)
        for delta in made.deltas:
            with contextlib.suppress(ValueError):
                update_of(delta, data).summary()


@pytest.mark.parametrize("kind", TUNERS)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, -1e-40, 0.0])
def test_any_value_in_any_place_gives_statistics_or_none(kind, value):
    tensors, config = HONEST[kind]
    for name, honest in tensors.items():
        if honest.dtype != np.float32:
            continue
        made, data = built(kind, tensors | {name: np.full_like(honest, value)}, config)
        (delta,) = made.deltas
        found = None
        with np.errstate(all="ignore"), contextlib.suppress(ValueError):
            found = update_of(delta, data).summary()
        if found is None:  # weights of choices must add up to one
            assert kind == "VBLORA"
            continue
        assert found.frobenius is None or np.isfinite(found.frobenius)
        if not np.isfinite(value):
            assert found.nonfinite


@pytest.mark.parametrize("kind", TUNERS)
def test_two_tensors_in_one_place_are_ambiguous(kind):
    tensors, config = HONEST[kind]
    for name, value in tensors.items():
        assert problem(kind, {**tensors, f"{name}.default": value}, config) == {"ambiguous"}


@pytest.mark.parametrize("kind", TUNERS)
def test_a_name_that_nothing_saves_is_unmatched_and_hides_nothing(kind):
    tensors, config = HONEST[kind]
    name = next(name for name in tensors if name.startswith(Q))
    decoy = f"{name}.weight.decoy"
    made, _ = built(kind, {**tensors, decoy: np.zeros(4, np.float32)}, config)
    roles = {item.tensor.name: item.role for item in made.accounted}
    assert roles.pop(decoy) is Role.UNMATCHED
    assert set(roles.values()) == {Role.ADAPTER}
    assert len(made.deltas) == 1


@pytest.mark.parametrize("kind", TUNERS)
def test_huge_shapes_are_refused_before_memory_is_taken(kind):
    tensors, config = HONEST[kind]
    for name, value in tensors.items():
        huge = tuple(side << 20 for side in value.shape)
        made, _ = built(kind, {**{n: v.shape for n, v in tensors.items()}, name: huge}, config)
        assert bool(made.deltas) != bool(made.problems)
        assert all(why_not(delta) for delta in made.deltas)


@pytest.mark.parametrize("kind", ["LOHA", "LOKR", "GRALORA"])
@pytest.mark.parametrize("alpha", ['"8"', "true", "[1]", "{}"])
def test_an_alpha_that_is_no_number_is_not_guessed(kind, alpha):
    assert problem(kind, HONEST[kind][0], f'"alpha": {alpha}') == {"unread"}


@pytest.mark.parametrize("kind", ["LOHA", "LOKR", "GRALORA"])
@pytest.mark.parametrize("alpha", ["NaN", "1e999", "-Infinity"])
def test_an_alpha_that_is_not_finite_gives_no_statistics(kind, alpha):
    made, data = built(kind, HONEST[kind][0], f'"alpha": {alpha}')
    with np.errstate(all="ignore"):
        found = update_of(made.deltas[0], data).summary()
    assert not found.frobenius or not np.isfinite(found.frobenius)


@pytest.mark.parametrize("topk", ["0", "6", "-1", '"2"', "2.0", "true"])
def test_a_number_of_choices_that_cannot_be_is_a_problem(topk):
    assert problem("VBLORA", vblora(), f'"topk": {topk}') <= {"shape", "unread"}


@pytest.mark.parametrize("choice", [[0, 0], [0, 5], [1, 255]])
def test_choices_that_the_bank_does_not_have_are_refused(choice):
    tensors = vblora()
    bank = tensors.pop(f"{ROOT}vblora_vector_bank")
    given = {f"{ROOT}vblora_vector_bank": bank}
    for name, value in tensors.items():
        shape = value.shape[:2]
        given[f"{name}_topk_indices"] = np.tile(np.array(choice, np.uint8), (*shape, 1))
        given[f"{name}_topk_weights"] = np.full((*shape, 1), 0.5, np.float32)
    made, data = built("VBLORA", given)
    with pytest.raises(ValueError, match="chooses"):
        update_of(made.deltas[0], data)


def test_indices_that_the_vector_does_not_have_are_refused():
    for wrong in (-1, 5, 1 << 40):
        tensors = unilora()
        tensors[f"{Q}.unilora_indices_B"][0, 0] = wrong
        made, data = built("UNILORA", tensors)
        with pytest.raises(ValueError, match="does not have"):
            update_of(made.deltas[0], data)


def test_indices_that_are_no_whole_numbers_are_not_read():
    tensors = shira()
    made, _ = built("SHIRA", tensors | {f"{Q}.shira_indices": normal(2, 9)})
    assert "whole numbers" in why_not(made.deltas[0])


def test_places_that_no_weight_has_are_refused():
    for wrong in (-1, 1 << 30):
        tensors = shira()
        tensors[f"{Q}.shira_indices"][0, 0] = wrong
        made, data = built("SHIRA", tensors)
        with pytest.raises(ValueError, match="no weight"):
            update_of(made.deltas[0], data)


def test_which_of_several_vectors_tinylora_takes_is_not_guessed():
    tensors = tinylora() | {f"{ROOT}tinylora_v.1": normal(4)}
    assert problem("TINYLORA", tensors) == {"unread"}


def test_a_general_part_that_the_config_does_not_have_is_told():
    tensors = gralora() | {
        f"{Q}.gralora_A_general.weight": normal(2, 6), f"{Q}.gralora_B_general.weight": normal(8, 2)
    }  # fmt: skip
    assert problem("GRALORA", tensors) == {"variant"}
    assert dense("GRALORA", tensors, '"hybrid_r": 2').shape == (8, 6)


def test_modules_that_the_config_does_not_target_are_told():
    made, _ = built("LOHA", loha(), '"target_modules": ["v_proj"]')
    assert made.untargeted == (Q.removeprefix("base_model.model."),)


def test_sparse_updates_are_not_put_together_without_the_base():
    made, _ = built("SHIRA", shira())
    module = Module("m", dict.fromkeys((0, 1), made.deltas[0]))
    assert "only the base" in module.obstacle


def test_updates_of_other_tuners_are_told_apart_by_their_shapes():
    first, other = (built("LOHA", loha(width=width))[0].deltas[0] for width in (6, 7))
    assert not Module("m", {0: first, 1: first}).obstacle
    assert "different shapes" in Module("m", {0: first, 1: other}).obstacle
