"""Every attack that the corpora benchmark writes is at least high, and no benign file is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapterscan.formats.pickle_facts import pickle_facts
from adapterscan.formats.pickle_file import find_pickles
from adapterscan.formats.reader import SourceFile
from adapterscan.model import FileKind, Finding, Severity
from adapterscan.rules.judging import judge, load_rules
from adapterscan.sources.kinds import file_kind
from benchmarks.corpora import containers, followed, names, page, results, routes, tampered
from benchmarks.corpora.sample import Sample

RULES = [rule for rule in load_rules() if rule.evidence.startswith(("pickle.", "archive."))]
SAMPLES = [
    sample
    for part in (routes, followed, tampered, containers, names)
    for sample in part.samples()
    if sample.truth == "attack"
]
EXPLAINED = page.explained()


def findings(sample: Sample, folder: Path) -> tuple[Finding, ...]:
    path = folder / sample.file
    path.write_bytes(sample.data)
    purpose: Any = "weights" if file_kind(sample.file) is FileKind.WEIGHTS else "trainer"
    with SourceFile(sample.file, path) as file:
        return judge(pickle_facts(find_pickles(file), purpose), RULES)


def alarms(sample: Sample, folder: Path) -> list[str]:
    return [found.rule for found in findings(sample, folder) if found.severity >= Severity.HIGH]


def missed(group: str, folder: Path) -> Iterator[str]:
    for sample in SAMPLES:
        if sample.group == group and not alarms(sample, folder):
            yield sample.name


@pytest.mark.parametrize("group", sorted({sample.group for sample in SAMPLES}))
def test_every_attack_raises_an_alarm_or_is_explained(group: str, tmp_path: Path) -> None:
    assert set(missed(group, tmp_path)) == set(EXPLAINED.get(group, {}))


def test_what_is_explained_says_more_than_nothing(tmp_path: Path) -> None:
    silent = [
        sample.key
        for sample in SAMPLES
        if sample.name in EXPLAINED.get(sample.group, {}) and not findings(sample, tmp_path)
    ]
    assert silent == []


def test_the_kept_answers_explain_every_miss() -> None:
    rows = results.read_rows().values()
    quiet = [row for row in rows if row.truth == "attack"]
    quiet = [row for row in quiet if row.answers["adapterscan"].verdict != "found"]
    assert [row.key for row in quiet if row.name not in EXPLAINED.get(row.group, {})] == []


def test_one_benign_file_of_the_kept_answers_raised_an_alarm_and_is_explained() -> None:
    rows = [row for row in results.read_rows().values() if row.truth == "benign"]
    assert len(rows) > 100
    accused = [row for row in rows if row.answers["adapterscan"].verdict == "found"]
    assert [row.name for row in accused] == ["benign_password_protected.zip"]
