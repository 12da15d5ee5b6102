"""Put a site's connections together across its captures: packets, requests and connections of one shard."""

from __future__ import annotations

from brokerlens import job  # first: limits threads before polars and numba start

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from brokerlens import tables
from brokerlens.capture import working
from brokerlens.kafka import requests as kafka_requests
from brokerlens.kafka.frames import follow_connections
from brokerlens.tcp import order, segments, stream

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

log = logging.getLogger("brokerlens")
MS = 1e6
NOTEBOOK_SCHEMA = pa.schema(
    [pa.field("timestamp", pa.int64(), False), pa.field("padded_len", pa.uint32(), False), pa.field("notebook_id", pa.uint32(), False)]
)


def nullable(values: np.ndarray, type_: pa.DataType, absent: np.ndarray) -> pa.Array:
    """An Arrow array that is null where ``absent``."""
    return pa.array(values, mask=absent).cast(type_)


def milliseconds(nanoseconds: np.ndarray) -> pa.Array:
    """Durations in ns as ms, null where negative (none)."""
    return nullable(nanoseconds / MS, pa.float64(), nanoseconds < 0)


def words(codes: np.ndarray, names: Sequence[str | None]) -> pa.Array:
    """Codes as a dictionary column; a name of None is null."""
    known = [name for name in names if name is not None]
    code_of = np.array([-1 if name is None else known.index(name) for name in names], dtype=np.int32)
    indices = code_of[codes] if len(names) else np.empty(0, np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(indices, mask=indices < 0), pa.array(known, type=pa.string()))


def endpoint(address: str, port: int) -> str:
    """``ip:port``, IPv6 in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def connection_ids(rows: working.Rows, ordered: order.Ordered) -> list[str]:
    """``clientip:port-brokerip:port#n`` of every connection."""
    table = rows.connections
    return [
        f"{endpoint(table['client_ip'][at], table['client_port'][at])}-{endpoint(table['broker_ip'][at], table['broker_port'][at])}#{n}"
        for at, n in zip(ordered.address.tolist(), ordered.generation.tolist(), strict=True)
    ]
