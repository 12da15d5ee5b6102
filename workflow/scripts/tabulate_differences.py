"""One table of what decoding the captures twice gave."""

from brokerlens import job  # isort: skip  # first: it tells the libraries below how many threads they may use

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from brokerlens.wireshark.differences import tabulate

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def tabulate_differences(*, found: Sequence[str], sites: Sequence[Sequence[str]], output: str) -> None:
    """Write agreements and differences by site and field. ``sites`` has experiment and site of each file in ``found``."""
    Path(output).write_text(tabulate(found, sites), encoding="utf-8")


if __name__ == "__main__":
    with job.logged(snakemake):
        tabulate_differences(found=snakemake.input.found, sites=snakemake.params.sites, output=snakemake.output.differences)
