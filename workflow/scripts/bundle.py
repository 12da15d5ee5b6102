"""One zip for a paper's supplement: report, figures, tables, configuration, versions, checksums of the captures, described as an RO-Crate."""

from brokerlens import job  # isort: skip  # first: it tells the libraries below how many threads they may use

import csv
import datetime as dt
import importlib.metadata
import io
import json
import platform
import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from brokerlens import __version__
from brokerlens.bundle import crate
from brokerlens.errors import UserError
from collect_sites import cell

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

CAPTURES = ("experiment", "site", "capture", "bytes", "sha256")
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can hold: no clock, so that the same files make the same bytes


def captures_table(captures: Sequence[Mapping[str, str]], checksums: Sequence[str | Path]) -> str:
    """CSV of the captures, each with ``experiment``, ``site`` and ``capture``, and of what hash_capture found in each, in the same order."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CAPTURES, lineterminator="\n")
    writer.writeheader()
    for capture, checksum in zip(captures, checksums, strict=True):
        writer.writerow({**{key: cell(value) for key, value in capture.items()}, **json.loads(Path(checksum).read_text(encoding="ascii"))})
    return text.getvalue()


def versions(lock: Path) -> str:
    """The packages of ``requirements.txt`` that are installed, with their versions, a line each, behind the workflow's and Python's; without that file of all that are installed."""
    lines = [f"brokerlens=={__version__}", f"Python {platform.python_version()}"]
    if lock.is_file():
        names = re.findall(r"^([A-Za-z0-9._-]+)==", lock.read_text(encoding="utf-8"), re.MULTILINE)
    else:
        names = sorted({found.name.lower() for found in importlib.metadata.distributions()})
    for name in names:
        try:
            lines.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return "\n".join(lines) + "\n"


def last_day(sites: str | Path) -> str | None:
    """The day, UTC, of the last packet of the data set ``sites``; None without packets."""
    last = pc.max(pq.read_table(sites, columns=["last_seen"]).column("last_seen"))
    return None if last.value is None else f"{dt.datetime.fromtimestamp(last.value // 1_000_000_000, dt.timezone.utc):%Y-%m-%d}"


def bundle(
    *,
    report: str | Path,
    specifications: str | Path,
    figures: str | Path,
    metrics: str | Path,
    comparisons: str | Path,
    sites: str | Path,
    checksums: Sequence[str | Path],
    captures: Sequence[Mapping[str, str]],
    settings: Mapping[str, Any],
    lock: str | Path,
    output: str | Path,
) -> None:
    """Write the zip. The first six are results; ``checksums`` are those of ``captures``, in the same order; ``settings`` is the configuration as may be published.

    The same files give the same bytes. Raises UserError where there is no date to be given.
    """
    published = settings.get("bundle", {}).get("published") or last_day(sites)
    if published is None:
        raise UserError("bundle.published: found nothing, expected a date such as 2026-01-31, since no capture has a packet with a time.")
    files: dict[str, Path | bytes] = {
        "report/index.html": Path(report),
        "report/figures.json": Path(specifications),
        **{f"report/figures/{path.name}": path for path in sorted(Path(figures).iterdir()) if path.suffix in (".svg", ".png")},
        "metrics.csv": Path(metrics),
        "comparisons.parquet": Path(comparisons),
        "sites.parquet": Path(sites),
        "configuration.yaml": yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True).encode(),
        "captures.csv": captures_table(captures, checksums).encode(),
        "versions.txt": versions(Path(lock)).encode(),
    }
    described = crate.describe(
        {path: len(content) if isinstance(content, bytes) else content.stat().st_size for path, content in files.items()},
        title=settings["report"]["title"],
        description=_description(captures),
        published=published,
        licence=settings.get("bundle", {}).get("license"),
    )
    _write({crate.METADATA: described, **dict(sorted(files.items()))}, Path(output))


def _description(captures: Sequence[Mapping[str, str]]) -> str:
    sites = sorted({(capture["experiment"], capture["site"]) for capture in captures})
    named = ", ".join("/".join(site) for site in sites[:10]) + (f" and {len(sites) - 10} more" if len(sites) > 10 else "")
    return (
        f"Kafka latency, TCP health and network variation of {named}, from {len(captures):,} packet captures, which are not part of it: "
        "report, figures, metrics and comparisons, with the configuration and the versions that made them."
    )


def _write(files: Mapping[str, Path | bytes], output: Path) -> None:
    with zipfile.ZipFile(output, "w") as archive:
        for path, content in files.items():
            entry = zipfile.ZipInfo(path, LONG_AGO)
            entry.create_system, entry.external_attr, entry.compress_type = 3, 0o100644 << 16, zipfile.ZIP_DEFLATED
            with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target)


if __name__ == "__main__":
    with job.logged(snakemake):
        bundle(
            report=snakemake.input.report,
            specifications=snakemake.input.specifications,
            figures=snakemake.input.figures,
            metrics=snakemake.input.metrics,
            comparisons=snakemake.input.comparisons,
            sites=snakemake.input.sites,
            checksums=list(snakemake.input.checksums),
            captures=snakemake.params.bundle["captures"],
            settings=snakemake.params.bundle["settings"],
            lock=snakemake.params.bundle["lock"],
            output=snakemake.output.bundle,
        )
