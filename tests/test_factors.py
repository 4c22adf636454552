"""Factors that are read again are those that were scanned."""

import os
from dataclasses import replace

import numpy as np
import pytest

from adapterscan.errors import ChangedWhileReading, LimitExceeded, Unsupported
from adapterscan.reading import read
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from adapterscan.updates.update import RANK_LIMIT
from adapterscan.weighing.factors import Factors
from tests.planted import TRAINED, Edited


@pytest.fixture
def scanned(tmp_path):
    folder = Edited(TRAINED / "benign").write(tmp_path / "adapter")
    contents = read(open_artifact(parse_ref(str(folder)), HubOptions()), workers=1)
    file = next(f for f in contents.artifact.files if f.path.endswith(".safetensors"))
    return contents.adapters[0], file, contents.records[-1].sha256


def test_every_update_has_the_norm_that_was_measured(scanned) -> None:
    weighed, file, sha256 = scanned
    norms = dict(weighed.weighed.deltas.of("frobenius"))
    with Factors(file, sha256) as factors:
        for delta in weighed.adapter.deltas:
            dense = factors.of(delta).dense()
            assert dense.shape == delta.shape
            assert np.linalg.norm(dense) == pytest.approx(norms[delta.name], rel=1e-5)


def test_another_content_is_refused(scanned) -> None:
    _, file, sha256 = scanned
    data = bytearray(file.local.read_bytes())
    data[-1] ^= 1
    file.local.write_bytes(data)
    with pytest.raises(ChangedWhileReading), Factors(file, sha256):
        pass


def test_a_write_meanwhile_is_noticed(scanned) -> None:
    _, file, sha256 = scanned
    with pytest.raises(ChangedWhileReading), Factors(file, sha256):
        os.utime(file.local, (1, 1))


def test_what_is_over_a_limit_or_not_here_is_refused(scanned) -> None:
    weighed, file, sha256 = scanned
    delta = replace(weighed.adapter.deltas[0], rank=RANK_LIMIT + 1)
    with Factors(file, sha256) as factors, pytest.raises(LimitExceeded, match="limit"):
        factors.of(delta)
    with pytest.raises(Unsupported, match="not fetched"):
        Factors(replace(file, local=None), sha256)


def test_a_view_that_shows_few_bytes_many_times_is_not_made(scanned) -> None:
    weighed, file, sha256 = scanned
    tensor = replace(weighed.adapter.weights.tensors[0], shape=(10**6, 100), strides=(0, 0))
    with Factors(file, sha256) as factors, pytest.raises(LimitExceeded):
        factors.rows(tensor, 0, 1)


def test_rows_of_any_tensor_are_those_of_the_whole(scanned) -> None:
    weighed, file, sha256 = scanned
    tensor = next(t for t in weighed.adapter.weights.tensors if t.shape[0] > 20)
    with Factors(file, sha256) as factors:
        whole = factors.values(tensor)
        assert np.array_equal(factors.rows(tensor, 5, 9), whole[5:9])
