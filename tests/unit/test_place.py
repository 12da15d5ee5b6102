"""Whether the working directory can take what a run writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brokerlens.errors import UserError
from brokerlens.place import check_writable


def refusing(*names: str) -> Callable[..., bool]:
    """`os.access` for a user who may not write into folders of these names: root, as whom tests run, may everywhere."""

    def access(path: Any, *_: Any, **__: Any) -> bool:
        return Path(path).name not in names

    return access


def test_a_fresh_folder_and_one_with_results_are_fine(tmp_path: Path) -> None:
    check_writable(tmp_path)
    (tmp_path / "results" / "logs").mkdir(parents=True)
    (tmp_path / "results" / "metrics.csv").touch()
    check_writable(tmp_path)


@pytest.mark.parametrize("name", ["work", "results", "logs", ".snakemake", "locks"])
def test_each_folder_that_a_run_writes_into(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    for folder in ("results/logs", ".snakemake/locks") if name != "work" else [""]:
        (work / folder).mkdir(parents=True)
    monkeypatch.setattr(os, "access", refusing(name))
    monkeypatch.setattr(os, "supports_effective_ids", set())
    with pytest.raises(UserError, match=rf"{name}.*: found a folder that this user may not write into, expected one .* --directory"):
        check_writable(work)


def test_a_file_in_the_place_of_the_results(tmp_path: Path) -> None:
    (tmp_path / "results").touch()
    with pytest.raises(UserError, match=r"results in .*: found no folder, expected one"):
        check_writable(tmp_path)
