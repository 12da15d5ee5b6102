"""What stands in the way of a run: the installation, the folder, the captures by their first packets, the window, time and disk."""

from brokerlens import job  # isort: skip  # first: it tells the libraries below how many threads they may use

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brokerlens.doctor import captures, forecast, installation, windows
from brokerlens.doctor.findings import Finding, as_text, counted
from brokerlens.errors import UserError
from brokerlens.report.zones import Zone

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def doctor(*, sites: Sequence[Mapping[str, Any]], timezone: str, requirements: str | Path, results: str | Path) -> list[Finding]:
    """Everything that was looked at, in the order in which a newcomer meets it.

    ``sites`` have ``experiment``, ``site``, ``window``, ``brokers``, ``decoder``, ``keys`` (whether TLS keys are configured) and ``captures``, each with
    ``path``, ``name`` and ``bytes``.
    """
    findings = [
        *installation.versions(Path(requirements)),
        installation.wireshark(installation.needs_of(sites)),
        installation.kernels(os.environ["NUMBA_CACHE_DIR"]),
        *installation.folders(Path(results)),
    ]
    each = captures.packets_each(sites)
    glances = [captures.look_at_site(site, each) for site in sites]
    for site, looks in zip(sites, glances, strict=True):
        sound = [look for look in looks if not look.error]
        findings += captures.describe(site, looks, Zone(timezone))
        findings += windows.describe(site, captures.stretch_of(sound, len(site["captures"])), timezone)
    return [*findings, *forecast.describe(sites, glances, installation.cores(), Path(results))]


if __name__ == "__main__":
    with (
        os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace") as terminal,
        job.logged(snakemake),
    ):  # what is printed goes into the log
        findings = doctor(**snakemake.params.doctor)
        terminal.write(as_text(findings) + counted(findings))
        terminal.flush()
        problems = [finding for finding in findings if finding.level == "problem"]
        if problems:  # alone: Snakemake shows the log of what failed, behind the whole
            print(as_text(problems))
            raise UserError("the doctor found what would end a run, or leave it without figures; it stands above")
        print(as_text(findings) + counted(findings))
