"""The cases behind one site's worst figures, and where their packets are."""

from brokerlens import job  # isort: skip  # first: limits threads before polars starts them

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from brokerlens import tables
from brokerlens.cases import choosing
from brokerlens.metrics.window import Window

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

Paths = Sequence[str | Path]


def choose_cases(*, packets: Paths, requests: Paths, connections: Paths, window: Mapping[str, Any], cases: str | Path) -> None:
    """Write the data set `cases` of a site from the parts of its other data sets; ``window`` has ``start`` and ``end``, ns since 1970 UTC or None."""
    rows = choosing.choose_cases(packets, requests, connections, Window.of(window))
    columns = {
        field.name: pa.array([row.get(field.name) for row in rows], pa.int64() if pa.types.is_timestamp(field.type) else _plain(field.type))
        for field in tables.schema("cases")
    }
    tables.write(pa.table(columns), cases, "cases", {"window": dict(window)})


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


if __name__ == "__main__":
    with job.logged(snakemake):
        choose_cases(
            packets=snakemake.input.packets,
            requests=snakemake.input.requests,
            connections=snakemake.input.connections,
            window=snakemake.params.choose["window"],
            cases=snakemake.output.cases,
        )
