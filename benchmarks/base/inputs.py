"""`python -m benchmarks.base.inputs BASE ADAPTER LAYERS`: write what is measured.

A process of its own: the launcher of a benchmark must stay small, or it hides what others take.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fixtures.temporary import seven_b_base, seven_b_shaped

if __name__ == "__main__":
    base, adapter, layers = sys.argv[1:]
    for folder in (base, adapter):
        Path(folder).mkdir()
    seven_b_base(Path(base), layers=int(layers))
    seven_b_shaped(Path(adapter), 16, layers=int(layers))
