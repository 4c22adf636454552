"""Every ΔW of PEFT's other tuners against PEFT's merge, and its statistics against the dense."""

import numpy as np
import pytest

from adapterscan.formats.accounting import Role
from adapterscan.reading import read
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from tests.oracle.measure import error, look, make
from tests.oracle.test_deltas import TOLERANCE
from tests.oracle.tuners import TUNERS


@pytest.fixture(scope="module", params=TUNERS, ids=lambda variant: variant.name)
def case(request, tmp_path_factory):
    """Return what PEFT made of a variant and what we read."""
    made = make(request.param, tmp_path_factory.mktemp("oracle") / "adapter")
    return made, look(made.folder)


def test_every_delta_equals_what_peft_merges(case):
    made, ours = case
    assert ours.deltas.keys() == made.deltas.keys()
    for name, theirs in made.deltas.items():
        found = ours.deltas[name]
        whole = np.zeros_like(theirs)  # SHiRA's ends with its last entry
        whole[: found.shape[0], : found.shape[1]] = found[: theirs.shape[0], : theirs.shape[1]]
        assert error(whole, theirs) < TOLERANCE, name


def test_statistics_are_those_of_what_peft_merges(case):
    made, _ = case
    contents = read(open_artifact(parse_ref(str(made.folder)), HubOptions()), workers=1)
    for name, summary in contents.adapters[0].weighed.deltas.items():
        dense = made.deltas[name]
        sigma = np.linalg.svd(dense, compute_uv=False)
        squares = np.square(dense)
        assert summary.frobenius == pytest.approx(np.linalg.norm(dense), rel=1e-5)
        assert summary.row_peak == pytest.approx(
            squares.sum(axis=1).max() / squares.sum(), rel=1e-4
        )
        if summary.top_energy is not None:
            assert summary.top_energy == pytest.approx(sigma[0] ** 2 / (sigma**2).sum(), rel=1e-4)
            share = sigma[sigma > 1e-6 * sigma[0]] / sigma.sum()
            entropy = -np.sum(share * np.log(share))
            assert summary.effective_rank == pytest.approx(np.exp(entropy), rel=1e-3)


def test_what_peft_saved_raises_no_alarm(case):
    _, ours = case
    assert {item.role for item in ours.adapter.accounted} == {Role.ADAPTER}
    assert not ours.adapter.untargeted
    assert not ours.rules
    assert ours.report.coverage.complete
