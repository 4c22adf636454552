"""Turn results into Markdown: what was measured beside what we set out to reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

OVERHEAD = 0.4  # seconds beyond sha256sum, at 80 and 320 MB
PEAK = 200.0  # MB at any size
HELP = 0.15  # seconds beyond `import typer`
INSTALL = 250.0  # MB


def markdown(results: Mapping[str, Any]) -> str:
    """Return the section of the README."""
    return "\n".join(
        (
            *_head(results),
            *(line for name, item in results["inputs"].items() for line in _input(name, item)),
            *_startup(results),
            *_install(results),
            *_goals(results),
        )
    )


def _head(results: Mapping[str, Any]) -> Iterator[str]:
    machine = results["machine"]
    yield f"### {results['date']}, commit {results['commit']}"
    yield ""
    yield f"    {results['command']}"
    yield ""
    yield (
        f"{machine['system']} {machine['architecture']}, {machine['cores']} cores of "
        f"{machine['processor']}, {machine['memory_gb']} GB; Python {machine['python']}, numpy "
        f"{results['versions']['adapterscan']['numpy']}, {machine['sha256sum']}; load "
        f"{machine['load_before']} before, {results['load_after']} after. Whole processes, in "
        "turns, page cache warm; medians (min–max)."
    )
    yield ""


def _input(name: str, item: Mapping[str, Any]) -> Iterator[str]:
    commands = item["commands"]
    base = commands["sha256sum"]["wall_s"]
    yield f"**{name}, {item['megabytes']:.0f} MB**"
    yield ""
    yield "| | wall s | × sha256sum | CPU s | peak MB | runs |"
    yield "|---|---|---|---|---|---|"
    for key, row in commands.items():
        wall, cpu, peak = row["wall_s"], row["cpu_s"], row["peak_mb"]
        stopped = " stopped" if row["stopped"] else ""
        yield (
            f"| {key}{stopped} | {wall['median']:.2f} ({wall['min']:.2f}–{wall['max']:.2f}) "
            f"| {wall['median'] / base['median']:.1f} | {cpu['median']:.2f} "
            f"({cpu['min']:.2f}–{cpu['max']:.2f}) | {peak['median']:.0f} | {row['runs']} |"
        )
    yield ""
    for key in ("json − sha256sum", "table − sha256sum"):
        pair = item[key]
        yield (
            f"{key}, paired: {pair['median']:+.2f} s ({pair['min']:+.2f} to {pair['max']:+.2f}).  "
        )
    kernel = item["kernel"]
    yield (
        f"Kernel alone, one thread, {kernel['modules']} modules: {kernel['summary_s']:.2f} s "
        f"(kurtosis exact to rank {kernel['exact_to']}); "
        f"{kernel['summary_bounded_kurtosis_s']:.2f} s with kurtosis of the leading 8 directions; "
        f"widening the factors to float64 alone "
        f"{kernel['widening_alone_s']:.2f} s."
    )
    yield ""
    yield "| step of one scan | ms |"
    yield "|---|---|"
    yield from (f"| {step} | {value:.0f} |" for step, value in item["phases_ms"].items())
    yield ""


def _startup(results: Mapping[str, Any]) -> Iterator[str]:
    startup = dict(results["startup"])
    if not startup:
        return
    pair = startup.pop("adapterscan --help − import typer")
    yield "**Startup**"
    yield ""
    yield "| | wall ms | CPU ms | peak MB |"
    yield "|---|---|---|---|"
    for key, row in startup.items():
        wall, cpu = row["wall_s"], row["cpu_s"]
        yield (
            f"| {key} | {wall['median'] * 1e3:.0f} ({wall['min'] * 1e3:.0f}–"
            f"{wall['max'] * 1e3:.0f}) | {cpu['median'] * 1e3:.0f} "
            f"| {row['peak_mb']['median']:.0f} |"
        )
    yield ""
    yield f"`--help` − `import typer`, paired: {pair['median'] * 1e3:+.0f} ms."
    yield ""


def _install(results: Mapping[str, Any]) -> Iterator[str]:
    yield "**Size of site-packages**, compiled, without pip"
    yield ""
    for name, sizes in results["install_mb"].items():
        parts = ", ".join(f"{key} {size:.0f}" for key, size in sizes.items() if key != "total")
        yield f"- {name}: {sizes['total']:.0f} MB ({parts})"
    yield ""


def _goals(results: Mapping[str, Any]) -> Iterator[str]:
    yield "**Goals**"
    yield ""
    for met, text in goals(results):
        yield f"- {'met' if met else 'NOT met'}: {text}"
    yield ""


def goals(results: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    """Yield whether each goal is met, and the figures."""
    for name, item in results["inputs"].items():
        commands = item["commands"]
        ours = [row for key, row in commands.items() if key.startswith("adapterscan")]
        if name.startswith("7B"):
            gap = max(item[key]["median"] for key in ("json − sha256sum", "table − sha256sum"))
            yield gap <= OVERHEAD, f"{name}: {gap:+.2f} s beyond sha256sum, goal {OVERHEAD:+.2f}"
        peak = max(row["peak_mb"]["max"] for row in ours)
        yield peak < PEAK, f"{name}: peak {peak:.0f} MB, goal below {PEAK:.0f}"
        cpu = max(row["cpu_s"]["median"] for row in ours)
        for key, row in commands.items():
            if key == "sha256sum" or key.startswith("adapterscan"):
                continue
            other, size = row["cpu_s"]["median"], row["peak_mb"]["median"]
            more = "over " if row["stopped"] else ""
            yield (
                (cpu < other or row["stopped"]) and peak < size,
                f"{name}: {cpu:.2f} CPU s and {peak:.0f} MB, "
                f"{key} {more}{other:.2f} and {size:.0f}",
            )
    if results["startup"]:
        gap = results["startup"]["adapterscan --help − import typer"]["median"]
        yield gap <= HELP, f"`--help` {gap:+.3f} s beyond `import typer`, goal {HELP:+.2f}"
    size = results["install_mb"]["adapterscan"]["total"]
    yield size < INSTALL, f"base install {size:.0f} MB, goal below {INSTALL:.0f}"
