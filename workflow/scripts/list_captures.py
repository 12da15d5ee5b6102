"""A site's captures in one file: what was found in each, and a digest of its working files, by the name of its folder."""

from brokerlens import job  # isort: skip  # first: limits threads before polars and numba start

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brokerlens.errors import UserError
from brokerlens.pseudonyms import AS_THEY_ARE, Pseudonyms, of_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def list_captures(
    *, folders: Sequence[str | Path], captures: str | Path, hide: Pseudonyms = AS_THEY_ARE, paths: Mapping[str, str] | None = None
) -> None:
    """Write the facts of the captures with these working folders, in order, as outputs may show them; ``paths`` of the captures by the names of their folders.

    Raises `UserError` where a folder has none.

    The digest makes the list another whenever a working file is: a small file with a new date alone does not make Snakemake run what reads it.
    """
    found = {}
    for folder in map(Path, folders):
        found[folder.name] = {**shown(_facts(folder), hide, [folder.name, (paths or {}).get(folder.name, "")]), "digest": _digest(folder)}
    Path(captures).write_text(json.dumps(found, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")


def shown(facts: Mapping[str, Any], hide: Pseudonyms, names: Sequence[str]) -> dict[str, Any]:
    """A capture's facts without its name and without addresses; in messages neither it nor its other ``names`` nor any path stand."""
    if not hide:
        return dict(facts)
    label = hide.capture(facts["capture"])
    parts = {part for name in (facts["capture"], *names) if name for part in (name, os.path.abspath(name), os.path.basename(name))}
    # As they are, and as Python quotes them in a text with one kind of quotes or with both.
    known = {spelt: label for part in parts for spelt in (part, repr(part)[1:-1], repr(part + "'\"")[1:-4])}
    return {
        **facts,
        "capture": label,
        "endpoints": [[hide.endpoint(end), packets] for end, packets in facts["endpoints"]],
        "notices": [hide.sentence(notice, known) for notice in facts["notices"]],
        "truncated": facts["truncated"] and hide.sentence(facts["truncated"], known),
    }


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
        list_captures(
            folders=list(snakemake.input.folders),
            captures=snakemake.output.captures,
            hide=of_job(snakemake.params.names),
            paths=snakemake.params.paths,
        )
