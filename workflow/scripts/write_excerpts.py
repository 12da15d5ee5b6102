"""A small pcapng file for each case of a site: its connection's packets around it, as they were captured."""

from brokerlens import job  # isort: skip  # first: limits threads before polars and numba start

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from brokerlens import __version__
from brokerlens.cases import pcapng
from brokerlens.cases.choosing import nearest, packets_of, read_cases
from brokerlens.cases.copying import changed, copy_packets
from brokerlens.cases.words import sentence

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

MOST_BYTES = 16 << 20
"""Captured bytes in an excerpt: fifteen of them are in memory at once."""


def write_excerpts(*, cases: str, packets: Sequence[str], captures: Mapping[str, str], site: str, folder: str | Path) -> None:
    """Write ``CASE.pcapng`` for each row of ``cases`` into a folder that only its owner may read.

    ``packets`` are the site's parts of that data set, ``captures`` the paths of its captures by name, each of which is read once. ``site`` is what the comments call it.
    Raises CaptureError for a capture that cannot be read, UserError for one that is another than was split.
    """
    rows = read_cases(cases)
    chosen = [_packets(packets, row) for row in rows]
    needed = pl.concat([frame for frame, _ in chosen]) if chosen else pl.DataFrame(schema={"capture": pl.String, "frame_number": pl.UInt32})
    copies = {
        str(capture): copy_packets(captures[str(capture)], frames["frame_number"].to_list())
        for (capture,), frames in needed.sort("capture").group_by("capture", maintain_order=True)
    }
    folder = Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    folder.parent.chmod(0o700)
    folder.parent.parent.chmod(0o700)
    for row, (frame, all_packets) in zip(rows, chosen, strict=True):
        packets_found = [_packet(copies, captures, line, row) for line in frame.iter_rows(named=True)]
        file = folder / f"{row['case']}.pcapng"
        file.touch(mode=0o600)
        with file.open("wb") as target:
            target.writelines(pcapng.section(packets_found, _comment(row, site, frame.height, all_packets), f"brokerlens {__version__}"))


def _packets(packets: Sequence[str], row: Mapping[str, Any]) -> tuple[pl.DataFrame, int]:
    """The rows of the packets that a case's excerpt holds, and the number of all that there are around it."""
    first, last = row["first_time"], row["last_time"]
    around = packets_of(packets, row["connection_id"], first, last)
    return nearest(around, first, last, MOST_BYTES), around.height


def _packet(
    copies: Mapping[str, Mapping[int, pcapng.CapturedPacket]], captures: Mapping[str, str], line: Mapping[str, Any], row: Mapping[str, Any]
) -> pcapng.CapturedPacket:
    """A packet with what is to be said of it: the case begins or ends there."""
    capture, frame = line["capture"], line["frame_number"]
    packet = copies[capture][frame]
    if packet.time != line["time"]:
        raise changed(captures[capture], f"another packet under number {frame:,}", f"the one of {line['time']:,} ns")
    said = {
        (row["last_capture"], row["last_frame"]): "ends here",
        (row["first_capture"], row["first_frame"]): "begins here",
    }.get((capture, frame))
    if said and row["first_time"] == row["last_time"]:
        said = "is here"
    return packet._replace(comment=f"{row['case']} {said}: {sentence(row)}") if said else packet


def _comment(row: Mapping[str, Any], site: str, held: int, all_packets: int) -> str:
    few = f" The {held:,} of {all_packets:,} packets that are nearest to its begin and end." if held < all_packets else ""
    return f"{row['case']} of {site}: {sentence(row)}. {row['connection_id']}, from a second before to a second after.{few}"


def captures_of(listed: str | Path, site: str) -> list[str]:
    """Names of the captures that a site's excerpts are copied from, in the order in which the workflow gives them."""
    names: list[str] = json.loads(Path(listed).read_text(encoding="utf-8"))[site]
    return names


if __name__ == "__main__":
    with job.logged(snakemake):
        site = f"{snakemake.wildcards.experiment}/{snakemake.wildcards.site}"
        write_excerpts(
            cases=snakemake.input.cases,
            packets=snakemake.input.packets,
            captures=dict(zip(captures_of(snakemake.input.listed, site), snakemake.input.captures, strict=True)),
            site=site,
            folder=snakemake.output.folder,
        )
