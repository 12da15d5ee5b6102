"""What is installed: one list of direct dependencies in three spellings, pinned, from whatever index the machine uses."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CONDA_NAMES = {"arch-py": "arch", "python-tzdata": "tzdata"}


def pins(lines: list[str]) -> dict[str, str]:
    """Versions by name of lines such as `numpy==2.4.6` or `numpy=2.4.6`."""
    split = [re.fullmatch(r"([A-Za-z0-9_.-]+?)==?([^=\s]+)", line.strip()) for line in lines if line.strip() and not line.startswith("#")]
    assert all(split), lines
    return {CONDA_NAMES.get(match[1], match[1]): match[2] for match in split if match}


@pytest.fixture(scope="module")
def direct() -> dict[str, str]:
    return pins((ROOT / "requirements.in").read_text().splitlines())


def test_conda_users_get_the_same_direct_dependencies(direct: dict[str, str]) -> None:
    listed: list[Any] = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = [item for item in listed if isinstance(item, str) and item != "pip" and not item.startswith("python>")]
    pip = next(item["pip"] for item in listed if isinstance(item, dict))
    assert pins(conda) | pins(pip) == direct


def test_the_lock_holds_every_direct_dependency_with_hashes(direct: dict[str, str]) -> None:
    text = (ROOT / "requirements.txt").read_text()
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", text, re.MULTILINE))
    assert direct.items() <= locked.items()
    entries = re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(re.findall(r"^[a-z0-9-]+==", text, re.MULTILINE))
    assert all("--hash=sha256:" in entry for entry in entries)


def test_what_a_cluster_needs_is_locked_beside_the_rest() -> None:
    pinned = [line for line in (ROOT / "requirements-slurm.in").read_text().splitlines() if not line.startswith("-c ")]
    text = (ROOT / "requirements-slurm.txt").read_text()
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", text, re.MULTILINE))
    assert pins(pinned).items() <= locked.items()
    everything = dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    assert all(version == everything[name] for name, version in locked.items() if name in everything)
    entries = re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)


def test_no_file_names_a_package_index() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    hosts = re.compile(
        rb"(?:pypi|pythonhosted|anaconda|prefix|crates|npmjs|maven)\.(?:org|io|com|dev)|--(?:extra-)?index-url[ =]", re.IGNORECASE
    )
    named = [
        path
        for path in listed.stdout.decode().split("\0")
        if path and path != "tests/unit/test_environment.py" and (ROOT / path).is_file() and hosts.search((ROOT / path).read_bytes())
    ]
    assert named == []


def test_one_version_everywhere() -> None:
    from brokerlens import __version__

    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert f"version: {__version__}" in (ROOT / "CITATION.cff").read_text()


def test_a_commit_is_checked_by_what_make_lint_does() -> None:
    recipe = re.search(r"^lint: env\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    repositories: list[Any] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]  # nothing is fetched
    entries = [hook["entry"] for hook in repositories[0]["hooks"]]
    assert entries == [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]


def test_what_the_site_needs_is_locked_beside_the_rest() -> None:
    pinned = pins((ROOT / "requirements-docs.in").read_text().splitlines())
    text = (ROOT / "requirements-docs.txt").read_text()
    assert pinned.items() <= dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", text, re.MULTILINE)).items()
    entries = re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
