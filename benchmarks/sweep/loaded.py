"""An adapter on its base in this process, loaded as a scan loads it: staged."""

from __future__ import annotations

import tempfile
from pathlib import Path

from adapterscan.probes.staging import stage
from adapterscan.reading import read
from adapterscan.runners.transformers_runner import TransformersRunner
from adapterscan.sources import HubOptions, open_artifact, parse_ref


def runner_of(adapter: Path, base: Path) -> TransformersRunner:
    """Return what asks the adapter in the folder `adapter` and the base in `base`."""
    contents = read(open_artifact(parse_ref(str(adapter)), HubOptions()), workers=1)
    with tempfile.TemporaryDirectory() as folder:
        stage(contents, contents.adapters[0].adapter, Path(folder))
        return TransformersRunner(base, Path(folder))
