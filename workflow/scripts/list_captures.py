"""A site's captures in one file: what was found in each, and a digest of its working files, by the name of its folder."""

from brokerlens import job  # isort: skip  # first: limits threads before polars and numba start

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brokerlens.errors import UserError

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def list_captures(*, folders: Sequence[str | Path], captures: str | Path) -> None:
    """Write the facts of the captures with these working folders, in order. Raises UserError where a folder has none.

    The digest makes the list another whenever a working file is: a small file with a new date alone does not make Snakemake run what reads it.
    """
    found = {Path(folder).name: {**_facts(Path(folder)), "digest": _digest(Path(folder))} for folder in folders}
    Path(captures).write_text(json.dumps(found, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")


def _facts(folder: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder}: found no facts.json that can be read ({error}); expected the working files that split_capture left. "
            "Remove the folder and run the same command again: its capture is read again."
        ) from error
    return facts


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.parquet")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    with job.logged(snakemake):
        list_captures(folders=list(snakemake.input.folders), captures=snakemake.output.captures)
