"""What a scan is given beside its targets: rules, limits, peers, a base, probes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from adapterscan.errors import FileProblem, UsageError

if TYPE_CHECKING:
    from adapterscan.calibration import Reference
    from adapterscan.config import Settings
    from adapterscan.model import Severity
    from adapterscan.onbase.base import BaseWeights
    from adapterscan.onbase.documents import BaseDocuments
    from adapterscan.probe import ProbeRequest
    from adapterscan.provenance.signing import Key
    from adapterscan.rules.judging import RuleBook
    from adapterscan.sources import HubOptions

DEFAULT_FAIL_ON = "high"
DEFAULT_MAX_DOWNLOAD = "5GB"
DEFAULT_BUDGET = "10m"
#: Hosts, parted by commas, that the hub may send us to for files. The public hub's own are known.
STORAGE_VARIABLE = "ADAPTERSCAN_STORAGE"


class Probe(StrEnum):
    """How much is asked of the model."""

    QUICK = "quick"
    STANDARD = "standard"
    DEEP = "deep"


def threshold_of(option: str | None, settings: Settings) -> Severity | None:
    from adapterscan.config import parse_severity

    if option is not None:
        return parse_severity(option)
    if settings.never_fail:
        return None
    return settings.fail_on if settings.fail_on is not None else parse_severity(DEFAULT_FAIL_ON)


def rule_book(folders: Iterable[Path]) -> RuleBook:
    from adapterscan.rules.judging import load_rules

    return load_rules(tuple(folders))


def peers_of(files: Sequence[Path]) -> Reference | None:
    """Return the adapters to compare with: ours and those of files; None: ours."""
    if not files:
        return None
    from adapterscan.calibration import Reference, built_in, read_reference

    return reduce(Reference.joined, map(read_reference, files), built_in())


def key_of(path: Path | None) -> Key | None:
    """Return the key to verify signatures with, None where none was named. Raises BadConfig."""
    if path is None:
        return None
    from adapterscan.provenance.signing import load_key

    return load_key(path)


def hub_options(
    endpoint: str | None, offline: bool, cache_dir: Path | None, max_download: str, progress: bool
) -> HubOptions:
    """Return how a command reaches the hub. Raises BadConfig for a size that is none."""
    from adapterscan.config import parse_size
    from adapterscan.sources import HubOptions

    return HubOptions(
        endpoint=endpoint,
        offline=offline,
        max_download=parse_size(max_download),
        progress=progress,
        cache_dir=cache_dir,
        storage=tuple(filter(None, os.environ.get(STORAGE_VARIABLE, "").split(","))),
    )


def limit_blas_threads() -> None:
    """Before NumPy loads: our own threads share the cores, BLAS must not start more."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return min(8, len(os.sched_getaffinity(0)))
    return min(8, os.cpu_count() or 1)


def _busy() -> int:
    """Return how many cores other programs keep busy, on average over a minute."""
    return round(os.getloadavg()[0]) if hasattr(os, "getloadavg") else 0


def probing_with(
    base: str | None,
    served_as: str | None,
    profile: Probe | None,
    budget: str | None,
    device: str | None,
    threads: int,
    options: HubOptions,
    *,
    redact: bool = False,
    triggers: Path | None = None,
) -> ProbeRequest | None:
    """Return what to probe with, or None where nobody asked for it.

    What can be known before any work starts is said here: the extra, the base, the memory.
    """
    if profile is None:
        given = {
            "--served-as": served_as, "--triggers": triggers, "--probe-budget": budget,
            "--device": device,
        }  # fmt: skip
        for option, value in given.items():
            if value is not None:
                raise UsageError(
                    f"{option} is for probes", hint="add --probe quick, or leave it out"
                )
        return None
    if base is None:
        raise UsageError(
            "--probe compares the adapter with its base model",
            hint="give it with --base: a folder, a .gguf file or org/name@commit",
        )
    if (served := base.startswith(("http://", "https://"))) != (served_as is not None):
        raise UsageError(
            "base and adapter must come from a server both, or neither",
            hint="--base http://127.0.0.1:8000/v1#BASE --served-as ADAPTER, by the server's names",
        )
    from adapterscan.config import parse_seconds
    from adapterscan.probe import ProbeRequest
    from adapterscan.probes.asking import PROFILES
    from adapterscan.probes.own import read_wordings
    from adapterscan.runners.host import RunnerOptions, require_libraries, require_memory
    from adapterscan.sources.base import open_base

    seconds, device = parse_seconds(budget or DEFAULT_BUDGET), device or "cpu"
    own = read_wordings(triggers) if triggers else ()
    if served:
        from adapterscan.runners.endpoint import parse_served
        from adapterscan.runners.http_json import KEY_VARIABLE

        models = parse_served(base, served_as or "", os.environ.get(KEY_VARIABLE, ""))
        return ProbeRequest(
            models, models.base.text, PROFILES[profile.value], RunnerOptions(), seconds, own, redact
        )
    threads = max(1, threads - _busy())  # a thread that waits for its core holds up the others
    require_libraries()
    found = open_base(base, options)
    memory = require_memory(found.bytes) if device == "cpu" else 0
    runner = RunnerOptions(device, threads, memory=memory, call_seconds=max(seconds, 60.0))
    return ProbeRequest(
        found.path, found.name, PROFILES[profile.value], runner, seconds, own, redact
    )


def base_weights(
    base: str | None, probing: ProbeRequest | None, options: HubOptions, *, whole: bool
) -> BaseWeights | str | None:
    """Return the base's weights to compare with: those that are probed, where they lie here.

    What can be probed and not compared is no error: then why.
    """
    if base is None or (probing is not None and probing.served):
        if whole:
            raise UsageError(
                "--whole-base is about the weights of --base",
                hint="give the base with --base: a folder, a .gguf file or org/name@commit",
            )
        return None
    from adapterscan.onbase.profile import Profile
    from adapterscan.sources.base_weights import open_base_weights, weights_of

    if probing is not None and isinstance(probing.base, Path):
        try:
            return weights_of(probing.base, probing.base_name)
        except FileProblem as problem:
            return str(problem)
    found = open_base_weights(base, options, None if whole else profiles())
    if whole and isinstance(found, Profile):
        raise UsageError(
            f"{base} is a profile, which holds no weights",
            hint="give the base itself, or leave --whole-base out",
        )
    return found


def base_documents(
    base: str | None, probing: ProbeRequest | None, options: HubOptions
) -> BaseDocuments | None:
    """Return where the base's tokenizer and templates are; None without a base that shows them."""
    if base is None or (probing is not None and probing.served):
        return None
    from adapterscan.sources.base_documents import base_documents as find

    return find(base, options)


def profiles() -> Path:
    """Return the folder where profiles of bases are kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "adapterscan" / "bases"
