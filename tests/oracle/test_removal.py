"""How much of a direction an adapter removes: planted edits, other edits, and none."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapterscan.declining import ask
from adapterscan.errors import NotApplicable
from adapterscan.runner import Side
from adapterscan.runners.host import HostedRunner

from .test_runner import OPTIONS, base, make_adapter, runner, staged  # noqa: F401  a fixture

WRITERS = ["o_proj", "down_proj"]
ROWS = [(3, 4, 5), (6, 7), (8, 9, 10), (11, 12), (13, 14, 3), (4, 9)]
SPLITS = [((0, 1, 2), (3, 4, 5)), ((0, 2, 4), (1, 3, 5)), ((0, 1, 5), (2, 3, 4))]


def ablated(folder, model, strength, split=0, modules=WRITERS):
    """Write an adapter that takes a direction's share out of all that `modules` write."""
    states = model._states(ROWS)[:, 0]
    one, two = SPLITS[split]
    r = torch.nn.functional.normalize(states[list(one)].mean(0) - states[list(two)].mean(0), dim=0)
    make_adapter(folder, r=1, lora_alpha=1, target_modules=modules)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    for name in tensors:
        if "lora_A" in name:
            path = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            weight = model.model.get_base_model().get_submodule(path).weight
            tensors[name] = (r @ weight.float())[None].contiguous()
            tensors[name.replace("lora_A", "lora_B")] = -strength * r[:, None]
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


@pytest.fixture
def plain(base, tmp_path):  # noqa: F811
    (tmp_path / "plain").mkdir()
    return runner(
        base, make_adapter(tmp_path / "any", target_modules=["q_proj"]), tmp_path / "plain"
    )


@pytest.mark.parametrize("strength", [0.5, 1.0, -0.5])
def test_the_share_that_is_projected_out_is_measured(base, plain, tmp_path, strength) -> None:  # noqa: F811
    folder = ablated(tmp_path / "ablated", plain, strength)
    found, *others = runner(base, folder, tmp_path).removals(ROWS, SPLITS)
    assert found.removed == pytest.approx(strength, abs=1e-4)
    assert found.energy == pytest.approx(32.0, rel=1e-3)
    assert found.cosine == pytest.approx(1.0, abs=1e-4)
    assert found.modules == 4
    assert all(abs(other.removed) < abs(strength) - 0.05 for other in others)


def test_of_some_modules_their_share_of_what_is_written_is_removed(base, plain, tmp_path) -> None:  # noqa: F811
    folder = ablated(tmp_path / "ablated", plain, 1.0, modules=["o_proj"])
    (found,) = runner(base, folder, tmp_path).removals(ROWS, SPLITS[:1])
    assert 0.0 < found.removed < 0.95
    assert found.modules == 2


def test_an_adapter_that_does_nothing_gives_exactly_zero(base, tmp_path) -> None:  # noqa: F811
    folder = make_adapter(tmp_path / "zero", size=0.0, target_modules=WRITERS)
    model = runner(base, folder, tmp_path)
    assert [found.removed for found in model.removals(ROWS, SPLITS)] == [0.0, 0.0, 0.0]


def test_a_random_adapter_removes_next_to_nothing(base, tmp_path) -> None:  # noqa: F811
    folder = make_adapter(tmp_path / "random", size=0.01, target_modules=WRITERS)
    model = runner(base, folder, tmp_path)
    assert all(abs(found.removed) < 0.05 for found in model.removals(ROWS, SPLITS))


def test_what_writes_nothing_into_the_stream_gives_nothing(plain) -> None:
    assert plain.removals(ROWS, SPLITS) == []


def test_it_travels_to_the_process_that_runs_the_model_and_back(base, plain, tmp_path) -> None:  # noqa: F811
    folder = ablated(tmp_path / "ablated", plain, 1.0)
    home = staged(folder, tmp_path)
    with HostedRunner(base, home, OPTIONS) as hosted:
        (found,) = hosted.removals(ROWS, SPLITS[:1])
        hosted.score(Side.ADAPTER, [(3, 4)], [[(5,)]], (6,))
        assert hosted.removals(ROWS, SPLITS[:1]) == [found]
    assert found.removed == pytest.approx(1.0, abs=1e-4)


def test_a_base_alone_tells_the_directions_that_edits_are_measured_along(base, plain) -> None:  # noqa: F811
    with HostedRunner(base, None, OPTIONS) as hosted:
        told = hosted.directions(ROWS, SPLITS)
        score = hosted.score(Side.ADAPTER, [(3, 4)], [[(5,)]], (6,))
        assert score == hosted.score(Side.BASE, [(3, 4)], [[(5,)]], (6,))
    states = plain._states(ROWS)
    expected = torch.nn.functional.normalize(
        states[[0, 1, 2]].mean(0) - states[[3, 4, 5]].mean(0), dim=-1
    )
    found = torch.tensor(told.vectors)
    assert found.shape == (3, states.shape[1], 32)
    assert torch.allclose(found[0], expected, atol=1e-4)
    assert told.layers == tuple(range(1, states.shape[1] + 1))


def test_a_base_that_declines_nothing_has_no_directions(base) -> None:  # noqa: F811
    with pytest.raises(NotApplicable, match="declines 0 of 40"):
        ask(base, OPTIONS)
