"""A base in little: what a profile holds, how a build goes on, and what a scan makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from adapterscan.errors import AdapterscanError, Malformed, Unreadable, Unsupported, UsageError
from adapterscan.onbase.profile import Profile, about
from adapterscan.onbase.profile_build import build, require_readable
from adapterscan.sources.base_shards import open_shards
from fixtures import bases
from fixtures.folder import config, honest, save
from fixtures.loopback_hub import LoopbackHub, read_folder
from fixtures.weights import PREFIX, encode, encode_all

Q = "model.layers.1.self_attn.q_proj.weight"
NORM = "model.layers.2.input_layernorm.weight"


@pytest.fixture
def base(tmp_path):
    return open_shards(bases.write(tmp_path / "base"), "base")


def built(base, path, count=16):
    build(
        base, about(base, "identity", {"tokenizer.json": "sha256:0"}, count), path, lambda _: None
    )
    return Profile(path)


class Failing:
    """A base that goes away after so many reads of rows."""

    def __init__(self, base, reads):
        self.base, self.left = base, reads
        self.name, self.tied, self.tensors = base.name, base.tied, base.tensors

    def rows(self, name, start, stop):
        self.left -= 1
        if self.left < 0:
            raise Unreadable(name, "is gone")
        return self.base.rows(name, start, stop)


def test_a_profile_has_norms_and_leading_triplets(base, tmp_path):
    profile = built(base, tmp_path / "base.profile")
    weight = base.rows(Q, 0, 64).astype(float)
    u, sigma, v = np.linalg.svd(weight)
    found = profile.leading(Q)
    assert found.frobenius == pytest.approx(np.linalg.norm(weight), rel=1e-6)
    assert found.sigma[:8] == pytest.approx(sigma[:8], rel=1e-3)
    assert found.left.shape == found.right.shape == (64, 16)
    assert np.abs(np.sum(found.left[:, :5] * u[:, :5], axis=0)) == pytest.approx(1, abs=2e-3)
    assert np.abs(np.sum(found.right[:, :5] * v[:5].T, axis=0)) == pytest.approx(1, abs=2e-3)
    assert profile.tensors == base.tensors
    assert profile.leading(NORM) is None  # a vector has a norm alone
    assert profile.about.documents == {"tokenizer.json": "sha256:0"}


def test_a_build_that_was_stopped_goes_on_and_ends_with_the_same_bytes(base, tmp_path):
    built(base, tmp_path / "whole.profile")
    path = tmp_path / "base.profile"
    what = about(base, "identity", {"tokenizer.json": "sha256:0"}, 16)
    with pytest.raises(Unreadable):
        build(Failing(base, 10), what, path, lambda _: None)
    assert not path.exists()
    left = build(base, what, path, lambda _: None)
    assert left == len(base.tensors) - 10
    assert path.read_bytes() == (tmp_path / "whole.profile").read_bytes()
    assert not path.with_name("base.profile.partial").exists()


def test_what_an_earlier_build_of_another_base_left_is_not_gone_on_with(base, tmp_path):
    path = tmp_path / "base.profile"
    with pytest.raises(Unreadable):
        build(Failing(base, 10), about(base, "other", {}, 16), path, lambda _: None)
    assert build(base, about(base, "identity", {}, 16), path, lambda _: None) == len(base.tensors)


def test_a_file_that_lost_its_end_is_begun_anew(base, tmp_path):
    path, what = tmp_path / "base.profile", about(base, "identity", {}, 16)
    with pytest.raises(Unreadable):
        build(Failing(base, 10), what, path, lambda _: None)
    partial = path.with_name("base.profile.partial")
    partial.write_bytes(partial.read_bytes()[:-1])
    assert build(base, what, path, lambda _: None) == len(base.tensors)


def test_a_weight_of_no_numbers_has_no_triplets(tmp_path):
    state = {"a.weight": np.full((8, 8), np.nan), "b.weight": np.ones((8, 8))}
    profile = built(open_shards(bases.write(tmp_path / "base", state), "b"), tmp_path / "b.profile")
    assert profile.leading("a.weight") is None
    assert profile.leading("b.weight").sigma[0] == pytest.approx(8)


@pytest.mark.parametrize("change", [
    lambda data: data[:-1], lambda data: data + b"\0", lambda data: b"{}", lambda data: b"",
    lambda data: data.replace(b'profile":"1"', b'profile":"9"'),
    lambda data: data.replace(b'"count', b'"mount'),
])  # fmt: skip
def test_what_is_no_whole_profile_is_refused(base, tmp_path, change):
    built(base, tmp_path / "base.profile")
    path = tmp_path / "other.profile"
    path.write_bytes(change((tmp_path / "base.profile").read_bytes()))
    with pytest.raises(AdapterscanError):
        Profile(path)


@pytest.mark.parametrize("data", [b"", b"no", b"a text about a base, of some length"])
def test_any_other_file_is_no_profile_and_is_named(tmp_path, data):
    path = tmp_path / "notes.profile"
    path.write_bytes(data)
    with pytest.raises(Malformed, match=r"notes\.profile: is no profile of a base"):
        Profile(path)


class Unequipped:
    """A base whose rows are read with a package that is not here."""

    def __init__(self, base):
        self.name, self.tied, self.tensors = base.name, base.tied, base.tensors

    def rows(self, name, start, stop):
        raise UsageError("a package is missing")


def test_a_base_that_nothing_here_can_read_is_told_before_a_file_is_laid_out(base):
    with pytest.raises(UsageError, match="a package is missing"):
        require_readable(Unequipped(base))
    require_readable(base)


def test_weights_are_no_profile(tmp_path):
    folder = bases.write(tmp_path / "base")
    with pytest.raises(Malformed, match="no profile") as caught:
        Profile(folder / "model.safetensors")
    assert "base build" in caught.value.hint


def test_a_profile_alone_has_no_rows(base, tmp_path):
    with pytest.raises(Unsupported, match="holds no weights"):
        built(base, tmp_path / "base.profile").rows(Q, 0, 1)


def test_of_the_base_only_those_rows_are_read_that_a_profile_does_not_have(base, tmp_path):
    built(base, tmp_path / "base.profile")
    profile = Profile(tmp_path / "base.profile", lambda: base)
    assert np.array_equal(profile.rows(NORM, 0, 64), base.rows(NORM, 0, 64))


# --- the command line


@pytest.fixture
def cache(tmp_path):
    return {"XDG_CACHE_HOME": str(tmp_path / "home-cache")}


def test_a_profile_is_built_once_and_then_used(run, adapters, tmp_path, cache):
    base = bases.write(tmp_path / "base")
    first = run("base", "build", base, **cache)
    assert first.returncode == 0, first.stderr
    assert "39 tensors" in first.stdout
    assert "already" in run("base", "build", base, **cache).stdout
    result = run("scan", adapters / "benign-qv", "--base", base, **cache)
    assert result.returncode == 0
    assert "with a profile of" in " ".join(result.stdout.split())
    assert "a merged file" not in result.stdout
    whole = run("scan", adapters / "benign-qv", "--base", base, "--whole-base", **cache)
    assert "a merged file" in whole.stdout
    assert "with a profile of" not in " ".join(whole.stdout.split())


def test_a_base_that_was_changed_is_not_compared_by_its_old_profile(run, adapters, tmp_path, cache):
    base = bases.write(tmp_path / "base")
    run("base", "build", base, **cache)
    bases.write(base, {**bases.weights(), "new.weight": np.ones((4, 4))})
    result = run("scan", adapters / "benign-qv", "--base", base, **cache)
    assert "a merged file" in result.stdout  # which a profile cannot tell


def test_a_profile_is_a_base_by_itself(run, adapters, tmp_path):
    base = bases.write(tmp_path / "base")
    run("base", "build", base, "-o", tmp_path / "tiny.profile")
    result = run("scan", adapters / "benign-qv", "--base", tmp_path / "tiny.profile")
    assert result.returncode == 0
    assert "‖ΔW‖/‖W‖" in result.stdout
    dora = tmp_path / "dora"
    magnitudes = {
        f"{PREFIX}model.layers.{layer}.self_attn.q_proj.lora_magnitude_vector": np.ones(64)
        for layer in range(4)
    }
    save(dora, config(use_dora=True), encode_all({**honest(), **magnitudes}))
    result = run("scan", dora, "--base", tmp_path / "tiny.profile")
    assert result.returncode == 3  # its true delta takes the weights, which are not here
    assert "holds no weights" in " ".join(result.stdout.split())


def test_an_overwrite_is_compared_with_the_base_itself(run, tmp_path, cache):
    base = bases.write(tmp_path / "base")
    run("base", "build", base, **cache)
    tensor = {f"{PREFIX}{NORM}": encode(bases.weights()[NORM])}
    save(tmp_path / "a", config(), {**encode_all(honest()), **tensor})
    result = run("scan", tmp_path / "a", "--base", base, "-v", **cache)
    assert result.returncode == 0
    assert "overwrite-identical" in result.stdout


def test_with_a_profile_no_weights_come_from_the_hub(run, adapters, tmp_path, cache):
    files = read_folder(bases.write(tmp_path / "base", shards=2))
    with LoopbackHub({"org/base": files}) as hub:
        options = ("--endpoint", hub.url, "--cache-dir", tmp_path / "cache")
        built = run("base", "build", "org/base", *options, **cache)
        assert built.returncode == 0, built.stderr
        hub.requests.clear()
        result = run("scan", adapters / "benign-qv", "--base", "org/base", *options, **cache)
        asked = [r.path for r in hub.requests if r.path.endswith(".safetensors")]
    assert result.returncode == 0
    assert "by ranges" not in result.stdout
    assert asked == []
