"""All samples together: what is generated, what others made, and what is benign."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from benchmarks.corpora import containers, fetched, followed, names, routes, suffixes, tampered
from benchmarks.corpora.sample import Sample
from benchmarks.speed.venvs import ROOT, make

#: Adapters by other people; the folder is not part of the project.
ADAPTERS = ROOT.parent / "shared" / "data" / "adapters"
TRAINED = ROOT / "fixtures" / "trained" / "benign"
EVERY = 8  # of the names and lists, and every fourth trainer file: a scan takes up to a second
_KINDS = frozenset({".bin", ".ckpt", ".npz", ".pkl", ".pt", ".pth", ".safetensors"})
#: What trainer files are made with; the older ones are laid over the first, without its packages.
_TRAINERS = (
    "torch==2.13.0", "transformers==5.23.0", "trl==1.16.0", "accelerate==1.15.0",
    "sentence-transformers==6.2.0",
)  # fmt: skip
_OLDER = {
    "2024": (
        "transformers==4.46.3", "tokenizers<0.21", "huggingface_hub<0.27",
        "trl==0.12.2", "accelerate==1.1.1", "peft==0.13.2",
    ),
    "2023": (
        "transformers==4.31.0", "tokenizers==0.13.3", "huggingface_hub<0.24", "trl==0.7.11",
        "accelerate==0.25.0", "peft==0.7.1", "numpy<2",
    ),
}  # fmt: skip
_ROLES = ("training_args.bin", "optimizer.pt", "scheduler.pt", "adapter_model.bin")


def samples(home: Path) -> Iterator[Sample]:
    """Yield every sample; scanners are installed under `home`, what is fetched is kept there."""
    for part in (routes, followed, tampered, containers, suffixes):
        yield from part.samples()
    yield from islice(names.samples(), 0, None, EVERY)
    yield from islice(names.of_lists(home), 0, None, EVERY)
    yield from fetched.samples(home)
    for group, folder in (("adapters of others", ADAPTERS), ("our adapter", TRAINED)):
        for path in sorted(folder.rglob("*")):
            if path.suffix in _KINDS:
                name = path.relative_to(folder).as_posix()
                config = path.with_name("adapter_config.json")
                beside = config.read_bytes() if config.is_file() else b""
                yield Sample(group, name, path.name, path.read_bytes(), "benign", config=beside)
    yield from islice(_saved(home), 0, None, EVERY // 2)


def _saved(home: Path) -> Iterator[Sample]:
    """Yield files that real trainers and the real torch.save wrote (`benign.py`)."""
    for year, folder in _made(home):
        for path in sorted(folder.iterdir()):
            role = next((role for role in _ROLES if path.name.endswith(role)), path.name)
            kind = "adapters of torch" if role == "adapter_model.bin" else "trainer files"
            yield Sample(f"{kind}, {year}", path.name, role, path.read_bytes(), "benign")


def _made(home: Path) -> Iterator[tuple[str, Path]]:
    python = make(home / "trainers", *_TRAINERS) / "python"
    for year, wanted in (("2026", ()), *_OLDER.items()):
        over, written = home / f"trainers-{year}", home / f"benign-{year}"
        if not written.is_dir():
            if wanted and not over.is_dir():
                pip = (sys.executable, "-m", "pip", "--python", str(python), "install", "-q")
                subprocess.run((*pip, "--no-deps", "--target", str(over), *wanted), check=True)
            script = str(Path(__file__).with_name("benign.py"))
            environment = {"PYTHONPATH": str(over), "PATH": "/usr/bin:/bin", "HOME": str(home)}
            command = (str(python), "-W", "ignore", script, str(written))
            subprocess.run(command, check=True, env=environment, cwd=home)
        yield year, written
