"""A case's packets as they stand in the captures, by their numbers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from brokerlens.capture.reader import Capture
from brokerlens.cases.pcapng import CapturedPacket
from brokerlens.errors import UserError


def copy_packets(path: str, frames: Iterable[int]) -> dict[int, CapturedPacket]:
    """The packets of a capture with these numbers (from 1, as Wireshark counts), in one pass that ends behind the last of them.

    Memory is that of these packets and a chunk. Raises CaptureError where the capture cannot be read, UserError where it has fewer packets.
    """
    wanted = np.unique(np.fromiter(frames, np.int64))
    found: dict[int, CapturedPacket] = {}
    capture = Capture(path)
    for chunk in capture.chunks():
        low, high = np.searchsorted(wanted, (chunk.frame_number, chunk.frame_number + chunk.found))
        for frame in wanted[low:high].tolist():
            offset, captured, wire, time, link = (int(column[frame - chunk.frame_number]) for column in chunk.packets)
            found[frame] = CapturedPacket(time, link, wire, chunk.buffer[offset : offset + captured].tobytes())
        if high == len(wanted):
            break
    if len(found) < len(wanted):
        raise changed(path, f"{capture.packets:,} packets", f"at least {wanted[-1]:,}")
    return found


def changed(path: str, found: str, expected: str) -> UserError:
    """The capture is not the one that was split."""
    return UserError(
        f"{path}: found {found}, expected {expected}, as when it was split. The file was changed since: "
        "put the old one back, or run snakemake without `excerpts` first, so that the new one is split."
    )
