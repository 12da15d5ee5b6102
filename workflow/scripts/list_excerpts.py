"""Which captures the excerpts of all sites are copied from: of thousands a few."""

from brokerlens import job  # isort: skip  # first: limits threads before polars starts them

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from brokerlens.cases.choosing import read_cases

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def list_excerpts(*, cases: Mapping[str, str], captures: str | Path) -> None:
    """Write the names of captures with cases in them as JSON, by ``EXPERIMENT/SITE``; ``cases`` are the files of that data set by the same."""
    needed = {site: sorted({capture for row in read_cases(path) for capture in row["captures"]}) for site, path in cases.items()}
    Path(captures).write_text(json.dumps(needed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with job.logged(snakemake):
        list_excerpts(cases=dict(zip(snakemake.params.sites, snakemake.input.cases, strict=True)), captures=snakemake.output.captures)
