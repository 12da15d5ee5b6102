"""The description of a bundle by the rules of RO-Crate 1.1 (https://w3id.org/ro/crate/1.1): what each file is, what made it, under which licence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import unquote

from brokerlens import __version__

METADATA: Final = "ro-crate-metadata.json"
FORMATS: Final = {
    ".html": "text/html",
    ".json": "application/json",
    ".csv": "text/csv",
    ".parquet": "application/vnd.apache.parquet",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".yaml": "application/yaml",
    ".txt": "text/plain",
}
"""Media types by ending."""
DESCRIBED: Final = {
    "report/index.html": "The report: one file with its tables, charts and texts, opens offline",
    "report/figures.json": "Vega-Lite specifications of the report's figures, with their data",
    "metrics.csv": "All metrics of all experiments and sites inside their windows, with number of samples and 95 % interval",
    "comparisons.parquet": "Every comparison of two sides: effect sizes with 95 % intervals and the verdict",
    "sites.parquet": "A row per experiment and site: window, brokers, capture point, packets kept and skipped",
    "configuration.yaml": "The configuration of the run",
    "captures.csv": "The captures, which are not in the bundle: experiment, site, name, bytes, SHA-256",
    "versions.txt": "The Python packages of the run with their versions",
}
"""What each file is, but for the figures."""
SPDX: Final = "https://spdx.org/licenses/"


def describe(files: Mapping[str, int], *, title: str, description: str, published: str, licence: str | None) -> bytes:
    """The text of ``ro-crate-metadata.json``.

    Parameters
    ----------
    files
        Bytes of each file by its path in the bundle, all but the description itself.
    title, description
        What it is called, and what it is.
    published
        The date of publication, ``2026-01-31``.
    licence
        An address, an identifier of SPDX, or None: then the description says that none was stated.
    """
    # It is slow to import, and wanted here alone.
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    crate = ROCrate(version="1.1")
    crate.name, crate.description, crate.datePublished = title, description, published
    crate.license = crate.add(ContextEntity(crate, *_licence(licence)))
    made = [crate.add_file(dest_path=path, properties=_file(path, size)) for path, size in sorted(files.items())]
    software = {"@type": "SoftwareApplication", "name": "brokerlens", "softwareVersion": __version__, "version": __version__}
    tool = crate.add(ContextEntity(crate, "#brokerlens", software))
    run = crate.add(
        ContextEntity(crate, "#run", {"@type": "CreateAction", "name": "Packet captures made into the report and the data sets behind it"})
    )
    run["instrument"] = tool
    run["result"] = made
    crate.root_dataset["mentions"] = run
    found: dict[str, Any] = crate.metadata.generate()
    found["@graph"].sort(key=lambda entity: (entity["@id"] != METADATA, entity["@id"] != "./", entity["@id"]))
    return (json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()


def _licence(licence: str | None) -> tuple[str, dict[str, str]]:
    """Identifier and properties of a licence."""
    if licence is None:
        return "#no-license", {
            "@type": "CreativeWork",
            "name": "No licence stated",
            "description": "Ask the authors before using these files.",
        }
    identifier = licence if "://" in licence else SPDX + licence
    return identifier, {"@type": "CreativeWork", "name": licence}


def _file(path: str, size: int) -> dict[str, str]:
    place = PurePosixPath(path)
    figure = f"Figure {unquote(place.stem)} of the report" if place.parent == PurePosixPath("report/figures") else ""
    return {
        "name": place.name,
        "description": DESCRIBED.get(path, figure),
        "encodingFormat": FORMATS[place.suffix],
        "contentSize": str(size),
    }
