"""Run targets one after the other and write what came of it, as rows of README.md's table."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from fuzz.targets import TARGETS, Target

HERE = Path(__file__).parent
CORPUS, FOUND = HERE / ".corpus", HERE / ".found"
SLOWEST_SECONDS = 20  # for one input; patterns may take 15 by design
MOST_MIB = 1024  # of the process, with the interpreter and what instruments it
_DONE = re.compile(r"#(\d+)\s+DONE\s+cov: (\d+) ft: (\d+) corp: (\d+)")


def main() -> None:
    """Fuzz the named targets, or all."""
    options = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    options.add_argument("names", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    options.add_argument("--seconds", type=int, default=300, help="for each target")
    given = options.parse_args()
    failed = [
        name for name in given.names or TARGETS if not fuzzed(name, TARGETS[name], given.seconds)
    ]
    sys.exit(f"crashes, hangs or too much memory: {', '.join(failed)}" if failed else 0)


def fuzzed(name: str, target: Target, seconds: int) -> bool:
    """Fuzz one target; print its row, or what broke. Return whether nothing did."""
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    FOUND.mkdir(exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        if len(seed) <= target.most:
            (corpus / f"seed-{number}").write_bytes(seed)
    command = [
        sys.executable, "-W", "ignore", "-m", "fuzz.harness", name, str(corpus),
        f"-max_total_time={seconds}", f"-max_len={target.most}", f"-timeout={SLOWEST_SECONDS}",
        f"-rss_limit_mb={MOST_MIB}", f"-artifact_prefix={FOUND}/{name}-", "-reload=0",
        "-close_fd_mask=1", f"-dict={HERE}/tokens.dict",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, cwd=HERE.parent, check=False)  # noqa: S603
    said = result.stderr.decode("utf-8", "replace")
    done = _DONE.search(said)
    if result.returncode == 0 and done:
        runs, edges, _, kept = map(int, done.groups())
        sys.stdout.write(f"| {name} | {seconds / 60:g} | {runs:,} | {edges:,} | {kept:,} |\n")
        sys.stdout.flush()
        return True
    sys.stdout.write(f"{name}: exit code {result.returncode}\n{said[-4000:]}\n")
    sys.stdout.flush()
    return False


if __name__ == "__main__":
    main()
