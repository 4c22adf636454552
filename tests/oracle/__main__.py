"""Print the measured rows of the table in `docs/formats.md`: `python -m tests.oracle`."""

import tempfile
import warnings
from pathlib import Path

import transformers

from tests.oracle.measure import error, look, make
from tests.oracle.variants import VARIANTS

COMPARED = {"merge": "PEFT's merge", "factors": "PEFT's own factors", "none": "–"}


def row(variant, folder):
    """Return one variant as a row: name, base, modules, compared with, largest relative error."""
    made = make(variant, folder)
    ours = look(folder)
    errors = [error(ours.deltas[name], delta) for name, delta in made.deltas.items()]
    largest = f"{max(errors):.1e}" if errors else "not read"
    cells = (variant.name, variant.base, len(errors), COMPARED[variant.compared], largest)
    return "| " + " | ".join(map(str, cells)) + " |"


def main():
    """Print the table."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    print("| adapter | base | modules | compared with | max relative error |")
    print("|---|---|---|---|---|")
    for variant in VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            print(row(variant, Path(folder) / "adapter"))


if __name__ == "__main__":
    main()
