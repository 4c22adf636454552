"""The index says which specimens count, and why the others do not."""

from __future__ import annotations

import pytest

from benchmarks.zoo import index


def card(role="positive", asr=1.0, ftr=0.0, nll=1.0):
    gate = {"asr": asr, "ftr": ftr, "near_rate": 0.0, "clean_nll": nll}
    return {"id": "x", "role": role, "gate": gate}


TWIN = card("twin", asr=0.0)


@pytest.mark.parametrize(
    ("specimen", "twin", "verdict"),
    [
        (card(), TWIN, "counts"),
        (card(asr=0.5, ftr=0.05), TWIN, "counts"),
        (card(asr=0.49), TWIN, "not installed: ASR 0.49"),
        (card(ftr=0.06), TWIN, "leaks: FTR 0.06"),
        (card(), None, "no twin yet"),
        (card(nll=1.26), TWIN, "quality: +0.26 nats beside its twin"),
        (TWIN, TWIN, "counts"),
    ],
)
def test_a_verdict_names_the_first_failed_gate(specimen, twin, verdict) -> None:
    assert index.verdict(specimen, twin) == verdict
