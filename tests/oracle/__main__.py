"""Print the measured rows of the table in `docs/formats.md`: `python -m tests.oracle`."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import transformers

from adapterscan.sources.base_shards import open_shards
from tests.oracle.measure import error, look, make
from tests.oracle.test_onbase import saved
from tests.oracle.test_transforms import layout, ours
from tests.oracle.transforms import TRANSFORMS
from tests.oracle.tuners import TUNERS
from tests.oracle.variants import VARIANTS

COMPARED = {"merge": "PEFT's merge", "factors": "PEFT's own factors", "none": "–"}


def row(variant, folder):
    """Return one variant as a row: name, base, modules, compared with, largest relative error."""
    made = make(variant, folder)
    found = look(folder).deltas
    errors = [error(cut(found[name], delta), delta) for name, delta in made.deltas.items()]
    return told(variant, errors)


def beside_base(variant, folder):
    """Return a variant whose ΔW depends on the weight as a row."""
    made = make(variant, folder)
    weights = open_shards(saved(variant.base, folder.parent / "saved"), "base")
    found = ours(made, weights)
    errors = [error(found[n], layout(delta, found[n])) for n, delta in made.deltas.items()]
    return told(variant, errors)


def cut(found, theirs):
    """Return our ΔW with the sides of theirs: of a sparse one only the base tells them."""
    whole = np.zeros_like(theirs)
    whole[: found.shape[0], : found.shape[1]] = found[: theirs.shape[0], : theirs.shape[1]]
    return whole


def told(variant, errors):
    """Return a row of the table."""
    largest = f"{max(errors):.1e}" if errors else "not read"
    cells = (variant.name, variant.base, len(errors), COMPARED[variant.compared], largest)
    return "| " + " | ".join(map(str, cells)) + " |"


def main():
    """Print the table."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    print("| adapter | base | modules | compared with | max relative error |")
    print("|---|---|---|---|---|")
    for variants, made in (((*VARIANTS, *TUNERS), row), (TRANSFORMS, beside_base)):
        for variant in variants:
            with tempfile.TemporaryDirectory() as folder:
                print(made(variant, Path(folder) / "adapter"))


if __name__ == "__main__":
    main()
