"""What must not change a scan: other bytes of the same ΔW, trained, seeded and planted.

Tolerances are relative and those of the rounding that the change itself does: bfloat16 has eight
bits, float32 factors of another gauge twenty-four.
"""

import json
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from adapterscan.rules.judging import load_rules
from adapterscan.scan import scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from fixtures.containers import Tensor, compact, header_pairs, layout, with_length
from fixtures.pickles import state_dict
from tests.conftest import ADAPTERS
from tests.planted import TRAINED, Edited

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
EXACT = 1e-12
FLOAT32 = 1e-4  # of the fourth moment and the peaks, which are summed in float32; norms keep 1e-6
#: Said of the file, not of ΔW; `entropy` is of the rank that the file has (docs/statistics.md).
OF_THE_FILE = ("scaling", "rank", "entropy")

#: Rules about how numbers are stored, and not about ΔW.
OF_THE_BYTES = {"precision-mixed", "low-bits-patterned"}


@dataclass
class Facts:
    """What a scan says that must not change."""

    modules: dict  # statistics of each ΔW by name
    spread: dict  # over all modules
    standing: list  # (p, score, members) where a reference has adapters of its kind
    rules: set
    counts: dict  # facts by name

    @classmethod
    def of(cls, folder):
        report = scan(open_artifact(parse_ref(str(folder)), HubOptions()), load_rules())
        evidence = report.evidence
        return cls(
            {
                item.subject.name: {"norm": item.value, **item.details}
                for item in evidence
                if item.name == "delta.statistics"
            },
            {
                item.subject.name: {"mean": item.value, **item.details}
                for item in evidence
                if item.name == "adapter.statistic"
            },
            [
                (item.value, item.details["score"], item.details["members"])
                for item in evidence
                if item.name == "adapter.standing"
            ],
            {finding.rule for finding in report.findings} - OF_THE_BYTES,
            {name: n for name, n in report.counts.items() if not name.startswith("bits.")},
        )


def plain(edited):
    pass


def spike(edited):
    """Put one direction that reads one input into every module."""
    edited.spike(edited.modules, 1, column=7)


SOURCES = {
    "trained": (TRAINED / "token-backdoor", plain),
    "seeded": (ADAPTERS / "benign", plain),
    "planted": (TRAINED / "benign", spike),
}


@pytest.fixture(scope="module", params=SOURCES)
def source(request):
    """Return a function that gives a fresh float32 copy, to be changed and written."""
    folder, edit = SOURCES[request.param]

    def copy():
        edited = Edited(folder)
        edited.tensors = {name: t.astype(np.float32) for name, t in edited.tensors.items()}
        edit(edited)
        return edited

    return copy


@pytest.fixture(scope="module")
def before(source, tmp_path_factory):
    """Return the facts of the adapter as it is."""
    return Facts.of(source().write(tmp_path_factory.mktemp("before") / "adapter"))


def agree(before, after, rel):
    """Hold one scan against another. The lot that smooths a p-value is drawn by the digest of the
    bytes, so p may move by one rank (docs/calibration.md)."""
    assert set(before.modules) == set(after.modules)
    for name, old in before.modules.items():
        same(old, after.modules[name], rel, name)
    for name, old in before.spread.items():
        if name != "entropy":
            same(old, after.spread[name], rel, name)
    for (p, score, members), (q, other, count) in zip(before.standing, after.standing, strict=True):
        assert count == members
        assert other == pytest.approx(score, rel=max(rel, 1e-4))  # of features that are rounded
        assert abs(p - q) <= 1 / (members + 1)


def same(old, new, rel, name):
    for key, value in old.items():
        if key not in OF_THE_FILE:
            expected = pytest.approx(value, rel=rel) if isinstance(value, float) else value
            assert new[key] == expected, (name, key)


def gauge(edited):
    edited.refactor()


def alpha(factor):
    def change(edited):
        edited.config["lora_alpha"] *= factor
        for name in edited.tensors:
            if "lora_B" in name:
                edited.tensors[name] = edited.tensors[name] / np.float32(factor)

    return change


def dtype(kind):
    def change(edited):
        edited.tensors = {name: tensor.astype(kind) for name, tensor in edited.tensors.items()}

    return change


def padding(filled):
    """Double the rank: columns of zeros in B, and in A rows of zeros or of anything."""

    def change(edited):
        for module in edited.modules:
            down, up = (f"{module}.lora_{side}.weight" for side in "AB")
            a, b = edited.tensors[down], edited.tensors[up]
            more = edited.rng.normal(size=a.shape).astype(np.float32) if filled else 0 * a
            edited.tensors[down] = np.concatenate([a, more])
            edited.tensors[up] = np.concatenate([b, 0 * b], axis=1)
        edited.config["r"] *= 2
        edited.config["lora_alpha"] *= 2

    return change


@pytest.mark.parametrize(
    ("change", "rel"),
    [
        pytest.param(gauge, FLOAT32, id="gauge"),
        pytest.param(alpha(4), EXACT, id="alpha times a power of two"),
        pytest.param(alpha(3), FLOAT32, id="alpha times three"),
        pytest.param(dtype(np.float16), 2e-3, id="float16"),
        pytest.param(dtype(ml_dtypes.bfloat16), 2e-2, id="bfloat16"),
        pytest.param(padding(False), 1e-9, id="rank padded with zeros"),
        pytest.param(padding(True), 1e-9, id="rank padded with zeros in B alone"),
    ],
)
def test_other_factors_of_the_same_update_change_nothing(source, before, change, rel, tmp_path):
    edited = source()
    change(edited)
    after = Facts.of(edited.write(tmp_path / "adapter"))
    agree(before, after, rel)
    assert after.rules == before.rules
    if rel < 1e-3:
        assert after.counts == before.counts
    else:  # an outlier is a fact from |z| = 3.5 on; one at the cut may be told or not
        assert set(after.counts) == set(before.counts)


def test_padding_is_told_by_the_rank(source, tmp_path):
    edited = source()
    rank = edited.config["r"]
    padding(False)(edited)
    after = Facts.of(edited.write(tmp_path / "adapter"))
    found = {(item["rank"], item["numerical_rank"]) for item in after.modules.values()}
    assert found == {(2 * rank, rank)}


def test_the_order_of_tensors_changes_nothing(source, before, tmp_path):
    folder = source().write(tmp_path / "adapter")
    entries, data = layout(tensors_of(source()))
    moved, body = {}, b""
    for name in reversed(entries):
        entry = entries[name]
        end = len(body) + entry.end - entry.start
        moved[name] = type(entry)(entry.dtype, entry.shape, len(body), end)
        body += data[entry.start : entry.end]
    header = ",".join(f"{compact(key)}:{compact(value)}" for key, value in header_pairs(moved))
    (folder / WEIGHTS).write_bytes(with_length(f"{{{header}}}".encode(), body))
    after = Facts.of(folder)
    agree(before, after, EXACT)
    assert (after.rules, after.counts) == (before.rules, before.counts)


def test_a_pickled_file_says_the_same_as_safetensors(source, before, tmp_path):
    folder = source().write(tmp_path / "adapter")
    (folder / WEIGHTS).unlink()
    (folder / "adapter_model.bin").write_bytes(state_dict(tensors_of(source())))
    after = Facts.of(folder)
    agree(before, after, EXACT)
    assert after.rules == before.rules | {"pickle-format"}


@pytest.mark.parametrize(
    "rename",
    [
        pytest.param(lambda name: name.removeprefix(PREFIX), id="no prefix"),
        pytest.param(lambda name: f"{PREFIX}{name}", id="prefix twice"),
        pytest.param(lambda name: f"module.{name}", id="a wrapper"),
        pytest.param(lambda name: name.replace(PREFIX, f"{PREFIX}_orig_mod."), id="compiled"),
        pytest.param(
            lambda name: name.replace(".weight", ".default.weight"), id="the adapter's name"
        ),
    ],
)
def test_names_that_some_loader_takes_apart_change_only_what_is_said_of_runtimes(
    source, before, rename, tmp_path
):
    edited = source()
    edited.tensors = {rename(name): tensor for name, tensor in edited.tensors.items()}
    after = Facts.of(edited.write(tmp_path / "adapter"))
    agree(before, after, EXACT)
    assert {rule for rule in after.rules if not rule.startswith("runtime-")} == before.rules


def test_of_two_files_each_is_measured_and_that_there_are_two_is_said(source, before, tmp_path):
    """No loader of adapters takes shards: it loads one file. The report says that they differ."""
    edited = source()
    folder = edited.write(tmp_path / "adapter")
    (folder / WEIGHTS).unlink()
    names = sorted(edited.tensors)
    for part, some in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        path = folder / f"adapter_model-0000{part}-of-00002.safetensors"
        save_file({name: edited.tensors[name] for name in some}, path, metadata={"format": "pt"})
    after = Facts.of(folder)
    assert after.modules == before.modules
    assert "weights-disagree" in after.rules


def tensors_of(edited):
    """Return the tensors as a container takes them, in float32."""
    return {
        name: Tensor("F32", tensor.shape, np.ascontiguousarray(tensor).tobytes())
        for name, tensor in edited.tensors.items()
    }


def test_a_planted_direction_is_still_seen_when_the_rank_is_padded(tmp_path):
    """Its rank is that of ΔW, so it is compared with the same adapters."""
    edited = Edited(TRAINED / "benign")
    spike(edited)
    plainly = Facts.of(edited.write(tmp_path / "plain"))
    padding(True)(edited)
    padded = Facts.of(edited.write(tmp_path / "padded"))
    assert [p for p, *_ in padded.standing] == pytest.approx(
        [p for p, *_ in plainly.standing], abs=0.02
    )
    assert json.dumps(sorted(padded.rules)) == json.dumps(sorted(plainly.rules))
