"""The report: one HTML file with everything in it, from the data sets."""

from brokerlens import job  # isort: skip - limits threads before polars starts them

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from brokerlens.report.page import write
from brokerlens.report.results import read_results

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def report(
    *,
    sites: str,
    metrics: Sequence[str],
    series: Sequence[str],
    requests: Sequence[str],
    connections: Sequence[str],
    packets: Sequence[str],
    topics: Sequence[str],
    comparisons: str,
    captures: Sequence[str],
    settings: Mapping[str, Any],
    paths: Sequence[str] = (),
    cases: Sequence[str] = (),
    output: str,
    specifications: str,
) -> None:
    """Write the report, and the specifications of its figures.

    ``metrics``, ``series``, ``requests``, ``connections``, ``packets``, ``topics``, ``paths`` and ``cases`` are the files of these data sets, ``captures`` the sites'
    lists of captures. ``settings`` has ``title``, ``baseline``, ``margin``, ``share_over_ms``, ``events`` (``experiment``, ``at`` in ns, ``label``)
    and whether names and addresses are ``pseudonyms``.
    """
    results = read_results(
        sites=sites,
        metrics=metrics,
        series=series,
        requests=requests,
        connections=connections,
        packets=packets,
        topics=topics,
        comparisons=comparisons,
        captures=captures,
        settings=settings,
        paths=paths,
        cases=cases,
    )
    write(results, output, specifications)


if __name__ == "__main__":
    with job.logged(snakemake):
        report(
            sites=snakemake.input.sites,
            metrics=snakemake.input.metrics,
            series=snakemake.input.series,
            requests=snakemake.input.requests,
            connections=snakemake.input.connections,
            packets=snakemake.input.packets,
            topics=snakemake.input.topics,
            paths=snakemake.input.paths,
            cases=snakemake.input.cases,
            comparisons=snakemake.input.comparisons,
            captures=snakemake.input.captures,
            settings=snakemake.params.report,
            output=snakemake.output.report,
            specifications=snakemake.output.specifications,
        )
