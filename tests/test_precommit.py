"""The hook with the real pre-commit, in a scratch git repository, installed as a user would."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "fixtures" / "adapters"
CONFIG = """\
repos:
  - repo: {hooks}
    rev: {revision}
    hooks:
      - id: adapterscan
"""


class Scratch:
    """A git repository with the hook installed."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def commit(self, fixture: str) -> subprocess.CompletedProcess[str]:
        """Copy a fixture into the repository and try to commit it."""
        shutil.copytree(FIXTURES / fixture, self.folder / "adapters" / fixture)
        self.run("git", "add", "--all")
        return self.run("git", "commit", "--message", fixture)

    def log(self) -> list[str]:
        return self.run("git", "log", "--format=%s").stdout.split()


def publish(folder: Path, environment: dict[str, str]) -> str:
    """Make a repository of the project's tracked files as they are now; return its commit."""
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    )
    wanted = ("adapterscan/", "rules/", "pyproject.toml", "README.md", ".pre-commit-hooks.yaml")
    for name in listing.stdout.split("\0"):
        if name.startswith(wanted) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    scratch = Scratch(folder, environment)
    for command in (("init", "-q"), ("add", "--all"), ("commit", "-q", "--message", "hooks")):
        scratch.run("git", *command)
    return scratch.run("git", "rev-parse", "HEAD").stdout.strip()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout, to know which files are published")
    base = tmp_path_factory.mktemp("hook")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "HF_"))}
    environment = {
        **kept,
        "PRE_COMMIT_HOME": str(base / "home"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_NAME": "test" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "test@host.example" for who in ("AUTHOR", "COMMITTER")},
    }
    hooks, folder = base / "hooks", base / "adapters"
    hooks.mkdir()
    folder.mkdir()
    revision = publish(hooks, environment)
    made = Scratch(folder, environment)
    made.run("git", "init", "-q")
    (folder / ".pre-commit-config.yaml").write_text(CONFIG.format(hooks=hooks, revision=revision))
    installed = made.run(sys.executable, "-m", "pre_commit", "install", "--install-hooks")
    assert installed.returncode == 0, installed.stdout + installed.stderr
    return made


def test_a_clean_adapter_is_committed(scratch):
    result = scratch.commit("benign-qv")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "benign-qv" in scratch.log()


def test_a_poisoned_adapter_is_stopped_with_the_tensor_named(scratch):
    result = scratch.commit("overwrite-layernorm")
    scratch.run("git", "reset", "-q", "--hard")
    said = result.stdout + result.stderr
    assert result.returncode != 0
    assert "CRITICAL" in said
    assert "input_layernorm.weight" in said
    assert "overwrite-layernorm" not in scratch.log()


def test_a_large_file_pointer_is_reported_as_not_scanned_and_does_not_pass(scratch):
    result = scratch.commit("lfs-pointer")
    scratch.run("git", "reset", "-q", "--hard")
    said = result.stdout + result.stderr
    assert result.returncode != 0
    assert "not scanned" in said
    assert "git lfs pull" in said


def test_files_that_are_no_adapter_are_left_alone(scratch):
    (scratch.folder / "notes.txt").write_text("hello")
    scratch.run("git", "add", "notes.txt")
    assert "Skipped" in scratch.run("git", "commit", "--message", "notes").stderr
