"""Whether the working directory can take what a run writes. Asked as the workflow starts: Snakemake would say it in a traceback, or once for each job."""

from __future__ import annotations

import os
from pathlib import Path

from brokerlens.errors import UserError, inert

WRITTEN = (".snakemake", "results")
"""The folders of the working directory that a run writes into."""


def check_writable(place: Path) -> None:
    """Raises UserError where one of the folders in ``place`` that a run writes into, or one in there, is none or cannot be written to."""
    for name in WRITTEN:
        folder = place / name
        if not os.path.lexists(folder):
            _check(place, f"the working directory {place}", f"to hold {name}/")
            continue
        _check(folder, f"{name} in {place}", "for what a run writes")
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir(follow_symlinks=False):
                    _check(Path(entry.path), f"{name}/{entry.name} in {place}", "for what a run writes")


def _check(folder: Path, what: str, why: str) -> None:
    if not folder.is_dir():
        raise UserError(f"{inert(what)}: found no folder, expected one {why}. Move it away and run the same command again.")
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
        found = "a file system that is mounted read-only" if read_only else "a folder that this user may not write into"
        raise UserError(
            f"{inert(what)}: found {found}, expected one {why}. Mend that, or choose another working directory with --directory."
        )
