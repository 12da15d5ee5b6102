"""Size and SHA-256 of a capture, as it is on disk."""

from brokerlens import job  # isort: skip  # first: it tells the libraries below how many threads they may use

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def hash_capture(*, capture: str | Path, output: str | Path) -> None:
    """Write ``bytes`` and ``sha256`` of a capture as JSON."""
    with Path(capture).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    Path(output).write_text(json.dumps({"bytes": size, "sha256": digest}) + "\n", encoding="ascii")


if __name__ == "__main__":
    with job.logged(snakemake):
        hash_capture(capture=snakemake.input.capture, output=snakemake.output.checksum)
