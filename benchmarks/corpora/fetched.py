"""Other people's samples: beside the checkout, and in a peer's source distribution.

Nothing of them is in this repository, and nothing of them is ever loaded.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from benchmarks.corpora.sample import Sample, Truth
from benchmarks.speed.venvs import ROOT

#: picklescan's own test data (MIT). The folder is not part of the project.
BESIDE = ROOT.parent / "shared" / "data" / "scanner_corpora" / "picklescan" / "tests"
#: The one source distribution among those of the peers that ships samples (MIT).
SDIST = "modelaudit==0.2.54"
_ASSETS = "tests/assets/"
_FOLDERS = ("exploits", "pickles", "samples/pickles", "samples/archives", "samples/pytorch")
_MORE = (
    "scenarios/security_scenarios/mixed_malicious_model/model.pkl",
    "scenarios/license_scenarios/mit_model/model_weights.pkl",
    "scenarios/license_scenarios/mixed_licenses/mixed_model.pkl",
    "scenarios/license_scenarios/unlicensed_dataset/embeddings.npy",
)

_BENIGN = ("benign", "int_array", "object_array", "safe_", "new_pytorch_model", "pytorch_model")
_MORE_BENIGN = frozenset({"model_weights.pkl", "mixed_model.pkl", "embeddings.npy"})
_DATA = "the pickle or code in it is text or bytes that nothing unpickles or runs"
_INERT = {
    "bad_pytorch.pt": "eight bytes of a PNG header",
    "not_a_pickle.bin": "seven stray bytes",
    "nested_pickle_base64.pkl": _DATA, "nested_pickle_hex.pkl": _DATA,
    "nested_pickle_multistage.pkl": _DATA, "nested_pickle_raw.pkl": _DATA,
    "simple_nested.pkl": _DATA, "decode_exec_chain.pkl": _DATA,
    "malicious_model_realistic.pkl": _DATA,
}  # fmt: skip


def samples(home: Path) -> Iterator[Sample]:
    """Yield the samples that are at hand; `home` keeps the distribution that is fetched once."""
    for path in sorted(BESIDE.glob("data*/*")):
        if path.is_file():
            yield _sample("corpus of picklescan", path.name, path.read_bytes())
    with tarfile.open(_sdist(home)) as archive:
        for member in sorted(archive.getmembers(), key=lambda item: item.name):
            _, _, name = member.name.partition(_ASSETS)
            if not member.isfile() or not (name.startswith(_FOLDERS) or name in _MORE):
                continue
            content = archive.extractfile(member)
            assert content is not None
            yield _sample("corpus of modelaudit", PurePosixPath(name).name, content.read())


def _sample(group: str, name: str, data: bytes) -> Sample:
    truth: Truth = "attack"
    if name in _INERT:
        truth = "inert"
    elif name.startswith(_BENIGN) or name in _MORE_BENIGN:
        truth = "benign"
    return Sample(group, name, name, data, truth, _INERT.get(name, ""))


def _sdist(home: Path) -> Path:
    """Return the distribution, downloaded on first use; nothing of it is installed."""
    folder = home / "sdist"
    if not list(folder.glob("*.tar.gz")):
        pip = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:")
        subprocess.run((*pip, "-d", str(folder), SDIST), check=True)
    (path,) = folder.glob("*.tar.gz")
    return path
