"""Decode packets of one capture by the native reader and by Wireshark, and write how far they agree."""

from brokerlens import job  # isort: skip  # first: it tells the libraries below how many threads they may use

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from brokerlens.wireshark.agreement import agreement

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def verify_capture(*, capture: str, brokers: Sequence[str], sample: int | None, output: str) -> None:
    """Write what ``agreement`` finds, and the capture's name, as JSON. ``sample`` None is all packets."""
    found = {"capture": capture, **agreement(capture, brokers, sample)}
    Path(output).write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with job.logged(snakemake):
        verify_capture(
            capture=snakemake.input.capture,
            brokers=snakemake.params.verify["brokers"],
            sample=snakemake.params.verify["sample"],
            output=snakemake.output.found,
        )
