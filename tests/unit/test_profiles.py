"""Profiles and the container: what only a cluster knows stands in its profile alone, and what a container needs is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))


def profile(name: str) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())
    return settings


def rules() -> dict[str, str]:
    """Text by name of every rule."""
    text = "\n".join(path.read_text() for path in RULES)
    return dict(re.findall(r"^(?:rule|checkpoint) (\w+):\n(.*?)(?=^rule |^checkpoint |\Z)", text, re.MULTILINE | re.DOTALL))


def test_what_only_a_cluster_knows_stands_in_its_profile() -> None:
    of_the_cluster = set(profile("slurm"))
    assert not of_the_cluster & set(profile("default"))
    for path in [ROOT / "Snakefile", *RULES]:
        assert not re.search(r"^\s*(group|retries|slurm_\w+|partition|qos)\s*[:=]", path.read_text(), re.MULTILINE), path


def test_the_cluster_profile_speaks_of_rules_that_exist() -> None:
    settings = profile("slurm")
    named = {settings["slurm-array-jobs"], *settings["groups"], *settings["set-threads"]}
    assert named <= set(rules())


def test_every_job_that_is_sent_grows_with_the_attempt() -> None:
    local = {"verify", "costs", "excerpts"}  # local rules of the Snakefile
    for name, text in rules().items():
        resources = re.search(r"    resources:\n((?:        .+\n)+)", text)
        if name in local:
            continue
        assert resources, name
        for resource in ("mem_mb", "runtime"):
            given = re.search(rf"^        {resource}=(.+),$", resources[1], re.MULTILINE)
            assert given, (name, resource)
            function = re.search(rf"def {given[1]}\(wildcards, attempt\)", (ROOT / "workflow/rules/common.smk").read_text())
            assert function or "attempt" in given[1], (name, resource, given[1])


def test_the_container_copies_what_is_there() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert copied
    ignored = (ROOT / ".dockerignore").read_text()
    for path in " ".join(copied).split():
        assert (ROOT / path).exists(), path
        assert f"!{path.split('/')[0]}\n" in ignored, path
