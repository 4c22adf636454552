"""Virtual environments for what is timed: one each, clean, compiled, without pip in it."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: What measures weights. The spectra of weightprobe need its runtime; mlx has a processor backend.
PEERS = {
    "adaptersentry": ("adaptersentry==2.0.2",),
    "weightprobe": ("weightprobe[runtime]==0.2.0", "mlx[cpu]"),
}


def make(folder: Path, *requirements: str) -> Path:
    """Install `requirements` into a new environment at `folder` and return its `bin`."""
    if not folder.is_dir():
        venv.create(folder, with_pip=False, symlinks=True)
        python = str(folder / "bin" / "python")
        pip = (sys.executable, "-m", "pip", "--python", python, "install", "-q", *requirements)
        subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
    return folder / "bin"


def versions(bin: Path) -> Mapping[str, str]:
    """Return the distributions in the environment."""
    code = (
        "from importlib.metadata import distributions as d\n"
        "for x in d(): print(x.metadata['Name'], x.version)"
    )
    done = subprocess.run((bin / "python", "-c", code), check=True, capture_output=True, text=True)
    return dict(line.split() for line in sorted(done.stdout.splitlines()))


def install_size(bin: Path) -> dict[str, float]:
    """Return the size of site-packages in 10^6 bytes, in all and of its largest folders."""
    (site,) = (bin.parent / "lib").glob("python*/site-packages")
    sizes: Counter[str] = Counter()
    for path in site.rglob("*"):
        if path.is_file() and not path.is_symlink():
            sizes[path.relative_to(site).parts[0]] += path.stat().st_size
    largest = {name: round(size / 1e6, 1) for name, size in sizes.most_common(8)}
    return {"total": round(sum(sizes.values()) / 1e6, 1), **largest}
