"""Ask a base, alone, which directions of its residual stream its refusals hang on.

The same requests and directions as the probe for abliteration has
(`detectors/behaviour/refusal_direction.py`); kept in a profile, adapters are compared with them
without running anything.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from adapterscan.detectors.behaviour.refusal_direction import controls, requests
from adapterscan.onbase.directions import Asked
from adapterscan.onbase.matrix import F32
from adapterscan.probes.asking import PROFILES, Session
from adapterscan.runners.host import HostedRunner, RunnerOptions

HALVES = 3  # of each kind of requests, as controls: fewer than the probe, a profile keeps them all
SECONDS = 3600.0


def ask(
    base: Path, options: RunnerOptions, tell: Callable[[str], None] = lambda _: None
) -> tuple[Asked, F32]:
    """Run the base in `base` and return what was asked, and (1 + controls, layers, hidden).

    Raises NotApplicable for a base that declines too little, RunnerProblem for one that cannot run.
    """
    tell("loading the base model")
    with HostedRunner(base, None, options) as runner:
        runner.until = time.monotonic() + SECONDS
        tell("asking what it declines")
        session = Session("", runner, PROFILES["quick"], runner.until, tell)
        groups, everything = requests(session)
        splits = [(groups[0], groups[1]), *controls(groups, HALVES)]
        told = runner.directions(everything, splits)
        vectors = np.asarray(told.vectors, np.float16).astype(np.float32)
        digest = hashlib.sha256(vectors.astype("<f2").tobytes()).hexdigest()
        asked = Asked(
            told.layers, runner.facts.layers, len(splits) - 1, vectors.shape[2], len(groups[0]),
            digest,
        )  # fmt: skip
        return asked, vectors
