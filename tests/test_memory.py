"""Peak memory of a whole scan, measured in a process of its own, whatever the file claims or holds.

The bound is `docs/limits.md`'s. What is over a limit is refused with a reason; what fits is judged
to the last tensor.
"""

import json
import subprocess
import sys
from functools import partial

import pytest

from adapterscan.rules.docket import EVIDENCE_LISTED
from adapterscan.rules.judging import EVIDENCE_SHOWN
from fixtures import heavy, temporary

BOUND = 200  # 10⁶ bytes
RUN = """
import atexit, sys
def tell():
    import resource
    line = next(row for row in open('/proc/self/status') if row.startswith('VmHWM'))
    other = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # that reads the files
    print('PEAK', max(int(line.split()[1]), other) * 1024 // 10**6, file=sys.stderr)
atexit.register(tell)
from adapterscan.cli import main
main()
"""
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def scanned(folder, *options):
    """Return the finished process and the most memory that it held, in 10⁶ bytes."""
    command = [sys.executable, "-c", RUN, "scan", str(folder), *options]
    result = subprocess.run(command, capture_output=True, check=False)
    return result, int(result.stderr.split(b"PEAK ")[1].split()[0])


MANY = {
    "modules": heavy.modules,
    "mixture": heavy.mixture,
    "overwrites": heavy.overwrites,
    "long-names": partial(heavy.long_names, count=55_000, length=200),
    "several": heavy.several,
    "wide": partial(heavy.wide, rank=256, width=48_000),
    "rank-1024": partial(heavy.wide, rank=1000, width=1000, count=8),
    "exact-moments": partial(heavy.wide, rank=64, width=64, count=36),
    "not-a-number": heavy.not_a_number,
    "documents": heavy.documents,
    "wide-document": heavy.wide_document,
    "pickled-tensors": heavy.pickled_tensors,
    "wide-texts": heavy.wide_texts,
    "pickles": heavy.pickles,
    "sparse": partial(temporary.sparse_weights, size=128 << 20),
}


@linux
@pytest.mark.parametrize("make", MANY.values(), ids=MANY)
def test_what_fits_the_limits_is_judged_within_the_bound(tmp_path, make):
    make(tmp_path)
    result, peak = scanned(tmp_path, "-f", "json", "-j", "8")
    (report,) = json.loads(result.stdout)["reports"]
    assert peak < BOUND
    assert result.returncode in (0, 1, 3)
    assert report["adapters"]
    assert not [item for item in report["coverage"]["skipped"] if "limit" in item["reason"]]


REFUSED = {
    "million": (temporary.million_tensors, "has a header of 67.7 MB, over the limit of 16.8 MB"),
    "120000": (
        partial(temporary.million_tensors, count=120_000), "lists more than 100,000 tensors",
    ),
    "names-of-200": (partial(heavy.long_names, count=99_000, length=200), "has a header of"),
    "names-of-5000": (partial(heavy.long_names, count=1000, length=5000), "has a tensor name of"),
    "metadata": (temporary.metadata_99mb, "has a header of 99.0 MB"),
    "dictionaries": (heavy.dictionaries, "the end of its pickles (limit)"),
    "bomb": (partial(temporary.archive_bomb, size=1 << 28), "longer than"),
}  # fmt: skip


@linux
@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_over_a_limit_is_refused_within_the_bound_and_says_why(tmp_path, make, reason):
    make(tmp_path)
    result, peak = scanned(tmp_path)
    assert peak < BOUND
    assert result.returncode in (1, 3)
    assert reason in " ".join(result.stdout.decode().split())


@pytest.fixture(scope="module")
def decoys(tmp_path_factory):
    """Return a folder with 99,000 numbers that no loader uses and one weight of the base."""
    folder = tmp_path_factory.mktemp("decoys")
    heavy.decoys(folder)
    return folder


@pytest.fixture(scope="module")
def among_decoys(decoys):
    """Return the JSON document of a scan of it, and its peak memory."""
    result, peak = scanned(decoys, "-f", "json")
    return json.loads(result.stdout), peak


@linux
def test_the_table_takes_no_more_than_json(decoys, among_decoys):
    result, peak = scanned(decoys)
    assert max(peak, among_decoys[1]) < BOUND
    assert b"Result: 1 critical" in result.stdout


@linux
def test_a_weight_of_the_base_is_named_among_99000_decoys(among_decoys):
    (report,) = among_decoys[0]["reports"]
    critical = [item for item in report["findings"] if item["severity"] == "critical"]
    assert [item["rule"] for item in critical] == ["base-weight-overwrite"]
    assert heavy.OVERWRITTEN in critical[0]["message"]
    assert heavy.OVERWRITTEN in {item["subject"]["name"] for item in report["evidence"]}


@linux
def test_what_is_not_listed_is_counted_and_said(among_decoys):
    (report,) = among_decoys[0]["reports"]
    listed = [item for item in report["evidence"] if item["name"] == "tensor.unmatched"]
    (finding,) = (item for item in report["findings"] if item["rule"] == "unmatched-tensors")
    assert EVIDENCE_LISTED <= len(listed) <= EVIDENCE_LISTED + EVIDENCE_SHOWN
    assert report["evidence_counts"]["tensor.unmatched"] == finding["count"] == 99_000
    (note,) = (item for item in report["coverage"]["skipped"] if item["what"] == "evidence")
    assert f"{99_000 - len(listed):,} tensor.unmatched" in note["reason"]
