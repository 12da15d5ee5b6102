"""The columns: what is written, and what the documentation says of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from brokerlens import __version__, tables

DOCS = Path(__file__).parents[2] / "docs" / "data-sets.md"


def metrics_table(value: float | None = 1.5) -> pa.Table:
    return pa.table(
        {
            "metric": ["rtt"],
            "group": ["all"],
            "statistic": ["p50"],
            "value": pa.array([value], pa.float64()),
            "unit": ["ms"],
            "n": [3],
            "ci_low": pa.array([None], pa.float64()),
            "ci_high": pa.array([None], pa.float64()),
        }
    )


def test_documentation_is_made_from_the_tables() -> None:
    assert DOCS.read_text(encoding="utf-8") == tables.documentation(), "run `make docs`"


@pytest.mark.parametrize("dataset", tables.DATASETS)
def test_every_field_says_what_it_means(dataset: str) -> None:
    names = [column.name for column in tables.DATASETS[dataset]]
    assert len(names) == len(set(names))
    assert all(field.metadata[b"description"] for field in tables.schema(dataset))


def test_same_table_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        tables.write(metrics_table(), tmp_path / name / "metrics.parquet", "metrics", {"captures": ["x"]})
    first, second = ((tmp_path / name / "metrics.parquet").read_bytes() for name in ("a", "b"))
    assert first == second
    assert not list(tmp_path.glob("*/.*"))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.parquet"
    tables.write(metrics_table(None), path, "metrics", {"captures": ["x"]})
    found = tables.read([path], "metrics")
    assert found.schema.equals(tables.schema("metrics"))
    assert found["value"].to_pylist() == [None]
    assert pq.read_schema(path).metadata[b"brokerlens"] == json.dumps({"captures": ["x"], "version": __version__}).encode()


def test_a_missing_column_and_a_null_are_refused() -> None:
    with pytest.raises(KeyError):
        tables.conform(metrics_table().drop(["n"]), "metrics")
    without = metrics_table().set_column(5, "n", pa.array([None], pa.int64()))
    with pytest.raises(ValueError, match=r"metrics\.n: 1 nulls"):
        tables.conform(without, "metrics")


@pytest.mark.parametrize(
    "writes", [lambda rows, path: tables.write(rows, path, "metrics", {}), lambda rows, path: tables.write_working(rows, path, {})]
)
def test_a_file_that_ends_halfway_is_not_there(tmp_path: Path, writes: Callable[[Iterator[pa.Table], Path], None]) -> None:
    """As where the disk is full: neither under its name, where its first rows would look like all, nor under another, where it takes space."""

    def rows() -> Iterator[pa.Table]:
        yield tables.conform(metrics_table(), "metrics")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        writes(rows(), tmp_path / "part.parquet")
    assert not list(tmp_path.iterdir())
