"""ΔW that depends on the weight: computed from the base's file, against PEFT's merge."""

import numpy as np
import pytest

from adapterscan.formats.accounting import Role
from adapterscan.formats.transforms import BY_KIND
from adapterscan.onbase.base import Names
from adapterscan.onbase.matrix import Matrix
from adapterscan.reading import read
from adapterscan.scan import ScanOptions, scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from adapterscan.sources.base_shards import open_shards
from adapterscan.weighing.factors import Factors
from tests.oracle.measure import error, look, make, rulebook
from tests.oracle.test_deltas import TOLERANCE
from tests.oracle.test_onbase import saved
from tests.oracle.transforms import TRANSFORMS
from tests.oracle.variants import BASE_LAYER


@pytest.fixture(scope="module", params=TRANSFORMS, ids=lambda variant: variant.name)
def case(request, tmp_path_factory):
    """Return the folder of a variant, what PEFT merges, and the base's weights."""
    folder = tmp_path_factory.mktemp("oracle")
    made = make(request.param, folder / "adapter")
    weights = open_shards(saved(request.param.base, folder / "base"), "base")
    return made, weights


def ours(made, weights, limit=1 << 28):
    """Return our dense ΔW by module, as the detector makes them."""
    contents = read(open_artifact(parse_ref(str(made.folder)), HubOptions()), workers=1)
    adapter, names, found = contents.adapters[0].adapter, Names(weights), {}
    assert not adapter.problems
    path = adapter.weights.path
    with Factors(contents.file(path), contents.sha256(path)) as factors:
        for item in adapter.transforms:
            tensor, turned = names.weight(item.module), adapter.config.fan_in_fan_out
            matrix = Matrix(weights, tensor, transposed=turned, limit=limit, block=64)
            change = BY_KIND[item.kind].change(item, factors.arrays(item), matrix)
            found[item.module] = (
                np.concatenate([change(*some) for some in matrix.blocks()])
                if callable(change)
                else change.rows(0, matrix.shape[0])
            )
    return found


def layout(theirs, found):
    """Return PEFT's ΔW of an embedding as the weight lies."""
    return theirs.T if theirs.shape != found.shape else theirs


def test_every_delta_equals_what_peft_merges(case):
    made, weights = case
    found = ours(made, weights)
    assert found.keys() == made.deltas.keys()
    for name, theirs in made.deltas.items():
        assert error(found[name], layout(theirs, found[name])) < TOLERANCE, name


def test_a_weight_that_is_not_held_gives_the_same(case):
    made, weights = case
    if any(name.startswith("transformer.") for name in made.deltas):
        pytest.skip("is stored transposed, and then held")
    first, again = ours(made, weights), ours(made, weights, limit=0)
    for name, theirs in first.items():
        np.testing.assert_allclose(again[name], theirs, atol=1e-6)


def test_sizes_beside_the_base_are_those_of_the_merge(case):
    made, weights = case
    artifact = open_artifact(parse_ref(str(made.folder)), HubOptions())
    report = scan(artifact, rulebook(), options=ScanOptions(base=weights))
    found = {
        item.subject.name: item.value * item.details["base_frobenius"]
        for item in report.evidence
        if item.name == "base.module"
    }
    assert found == pytest.approx({k: np.linalg.norm(v) for k, v in made.deltas.items()}, rel=1e-4)
    assert report.coverage.complete, report.coverage.skipped


def test_without_the_base_the_scan_is_incomplete_and_nothing_is_found(case):
    made, _ = case
    found = look(made.folder)
    assert {item.role for item in found.adapter.accounted} <= {Role.ADAPTER, Role.DECLARED}
    assert not found.adapter.untargeted
    assert found.rules <= BASE_LAYER
    assert not found.report.coverage.complete
