"""What a run cost: time, processor time and memory of its jobs by rule, from the benchmarks that they left."""

from brokerlens import job  # isort: skip  # first: it tells the libraries below how many threads they may use

import csv
import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brokerlens.errors import UserError

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

COLUMNS = ("rule", "jobs", "seconds", "longest_s", "cpu_s", "most_mb", "read_mb", "mb_per_s")


def number(text: str | None) -> float:
    """A field of a benchmark; 0 where it is none: of a job that ended before it was looked at, or that was killed while it wrote the file."""
    try:
        found = float(text or "")
    except ValueError:
        return 0.0
    return found if math.isfinite(found) else 0.0


def costs(benchmarks: str | Path, sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    """A row per rule with a benchmark below the folder ``benchmarks``, the dearest first; ``sizes`` are the captures' bytes by their job's benchmark.

    ``seconds`` adds up all jobs', ``longest_s`` and ``most_mb`` (resident) are one job's. ``read_mb`` and ``mb_per_s`` are of rules that read captures, else None.
    Raises UserError where there are no benchmarks.
    """
    rows: dict[str, dict[str, Any]] = {}
    for path in sorted(Path(benchmarks).rglob("*.tsv")):
        rule = path.relative_to(benchmarks).parts[0].removesuffix(".tsv")
        row = rows.setdefault(rule, {"rule": rule, **dict.fromkeys(COLUMNS[1:6], 0), "read_mb": None, "mb_per_s": None})
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            for run in csv.DictReader(file, delimiter="\t"):
                seconds = number(run.get("s"))
                row["jobs"] += 1
                row["seconds"] += seconds
                row["longest_s"] = max(row["longest_s"], seconds)
                row["cpu_s"] += number(run.get("cpu_time"))
                row["most_mb"] = max(row["most_mb"], number(run.get("max_rss")))
        if str(path) in sizes:
            row["read_mb"] = (row["read_mb"] or 0) + sizes[str(path)] / 1e6
    for row in rows.values():
        if row["read_mb"] is not None and row["seconds"]:
            row["mb_per_s"] = row["read_mb"] / row["seconds"]
    if not rows:
        raise UserError(f"{benchmarks}: found no benchmarks, expected one of each job. Run the workflow first.")
    return sorted(rows.values(), key=lambda row: -row["seconds"])


def as_table(rows: list[dict[str, Any]]) -> str:
    """The rows for people: columns under each other."""
    texts = [list(COLUMNS), *([_text(row[column]) for column in COLUMNS] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join(
        "  ".join([text[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(text[1:], widths[1:], strict=True))])
        for text in texts
    )


def as_csv(rows: list[dict[str, Any]]) -> str:
    """The rows for programs."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()} for row in rows)
    return file.getvalue()


def _text(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as terminal, job.logged(snakemake):  # what is printed goes into the log
        rows = costs(snakemake.params.costs["benchmarks"], snakemake.params.costs["sizes"])
        Path(snakemake.params.costs["table"]).write_text(as_csv(rows), encoding="utf-8")
        terminal.write(as_table(rows) + "\n")
