"""How long following record batches from producer to consumer takes beside sorting both sides by partition and offset with polars on one thread.

    .venv/bin/python benchmarks/deliveries.py [BATCHES] [--runs N]

Tables as `join_deliveries` has them are generated: half of BATCHES produced at two sites, the other half fetched, each by one of some consumers at either site; of each
hundred batches one is not seen produced and one not fetched. Prints the least of the runs' times, their ratio, and the most memory that the process had.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["POLARS_MAX_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

import numpy as np
import polars as pl

from brokerlens import job  # first: it says where compiled kernels go
from brokerlens.kafka.batches import FETCHED, PRODUCED
from brokerlens.routes.clocks import Clock
from brokerlens.routes.deliveries import follow

assert job
PARTITIONS, TOPICS, CONNECTIONS = 48, 8, 400
SECOND = 1_000_000_000
EPOCH = 1_766_000_000 * SECOND


def tables(batches: int, chance: np.random.Generator) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Produced and fetched batches, each side in the order of time as the merges leave them."""
    count = batches // 2
    partition = chance.integers(0, PARTITIONS, count)
    records = chance.integers(1, 40, count)
    order = np.argsort(partition, kind="stable")
    offsets = np.empty(count, np.int64)
    before = np.cumsum(records[order]) - records[order]
    first_of = np.searchsorted(partition[order], np.arange(PARTITIONS))
    offsets[order] = before - before[np.minimum(first_of, count - 1)][partition[order]]
    sent = EPOCH + np.sort(chance.integers(0, 3_600 * SECOND, count))
    way = 10_000_000
    batch = {
        "by_id": np.zeros(count, bool),
        "topic": np.array([f"topic{number}" for number in range(TOPICS)])[partition % TOPICS],
        "partition": partition // TOPICS,
        "first_offset": offsets,
        "last_offset": offsets + records - 1,
        "magic": np.full(count, 2),
        "attributes": np.zeros(count, int),
        "record_count": records,
        "record_bytes": records * 100,
        "base_timestamp": sent // 1_000_000,
        "producer_id": np.full(count, 7),
        "producer_epoch": np.zeros(count, int),
        "base_sequence": np.arange(count) % (1 << 31),
    }
    common = {"tap": np.full(count, "client"), "way": np.full(count, way), "retransmitted": np.zeros(count, bool)}

    def side(columns: dict[str, object], kinds: dict[str, pl.DataType], chosen: np.ndarray, what: str) -> pl.DataFrame:
        site = chance.integers(0, 2, len(chosen))
        table = pl.DataFrame(columns)[chosen].with_columns(
            pl.Series("site", np.array(["edge", "cloud"])[site]),
            pl.Series(
                "connection_id",
                np.array([f"192.0.2.{n % 2}:{n}-192.0.2.10:9092#1" for n in range(CONNECTIONS)])[
                    2 * chance.integers(0, CONNECTIONS // 2, len(chosen)) + site
                ],
            ),
            pl.lit(what).alias("client_id"),
            pl.int_range(pl.len()).alias("correlation_id"),
            pl.lit("kafka").alias("cluster"),
            pl.lit(None, pl.String).alias("topic_id"),
        )
        word = pl.col("site", "cluster", "topic_id").cast(pl.Categorical)
        return table.with_columns(word).select("site", "cluster", "topic_id", *(pl.col(name).cast(kind) for name, kind in kinds.items()))

    times = {"request_first": sent, "request_last": sent, "response_first": sent + 3 * way, "response_last": sent + 3 * way}
    produced = (
        batch | common | times | {"acks": np.full(count, -1), "status": np.full(count, "answered"), "error_code": np.zeros(count, int)}
    )
    wait = chance.exponential(50_000_000, count).astype(np.int64)
    came = sent + 4 * way + wait
    got = {
        "request_first": came - 500_000_000,
        "request_last": came - 500_000_000,
        "response_first": came,
        "response_last": came,
        "complete": came,
    }
    everything = np.arange(count)
    seen = everything[everything % 100 != 0], np.argsort(came)
    return (
        side(produced, PRODUCED, seen[0], "producer"),
        side(batch | common | got, FETCHED, seen[1][seen[1] % 100 != 1], "consumer"),
    )


def least(runs: int, work: Callable[[], object]) -> float:
    """The shortest of some runs, CPU seconds."""
    took = []
    for _ in range(runs):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return min(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("batches", type=int, nargs="?", default=10_000_000)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    known = {"edge": Clock(0.0), "cloud": Clock(0.0)}
    produced, fetched = tables(asked.batches, np.random.default_rng(1))
    few = tables(10_000, np.random.default_rng(2))
    follow(*few, known)  # compile
    by = ["cluster", "topic", "partition", "first_offset"]
    sorting = least(asked.runs, lambda: (produced.sort(by), fetched.sort(by)))
    following = least(asked.runs, lambda: follow(produced, fetched, known))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{asked.batches:,} batches: sorted in {sorting:.2f} s, followed in {following:.2f} s, {following / sorting:.2f} times that; {memory:.2f} GB at most"
    )


if __name__ == "__main__":
    main()
