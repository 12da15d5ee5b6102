"""The log of fields as tables, against a plain loop over it."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from brokerlens.kafka.bodies import WANTED, decode
from brokerlens.kafka.layouts import FIELDS
from brokerlens.kafka.tabulate import NONE, OF_BATCH, OF_FRAME, OF_PARTITION, tabulate

Row = dict[str, int]
Log = list[list[tuple[str, int]]]
"""Per frame the fields of its body, in the order of the wire."""

VALUES = st.sampled_from([0, 0, 3, -1, 2**63 - 1, 1 - 2**63])
OFTEN = ("topic", "partition", "error_code", "batch_magic", "batch_producer_id", "high_watermark")
FIELDS_OF_A_BODY = st.lists(st.tuples(st.sampled_from([*OFTEN, *OFTEN, *WANTED, "node_id"]), VALUES), max_size=25)
LOGS = st.lists(FIELDS_OF_A_BODY, max_size=4)


def read(log: Log) -> tuple[list[Row], list[Row], list[Row]]:
    """Rows of frames, partitions and batches; what is not said is not in a row."""
    frames: list[Row] = []
    partitions: list[Row] = []
    batches: list[Row] = []
    place = 0
    for number, fields in enumerate(log):
        frame: Row = {"partitions": 0}
        partition: Row = {}
        batch: Row = {}
        topic = last_partition = -1
        for name, value in fields:
            if name in ("topic", "topic_id"):
                topic = place
            elif name == "partition":
                last_partition = len(partitions)
                partition, batch = {"frame": number, "topic": topic, "partition": value}, {}
                partitions.append(partition)
                frame["partitions"] += 1
            elif name == "batch_magic":
                batch = {"frame": number, "number": last_partition, "batch_magic": value}
                batches.append(batch)
            elif name == "error_code":
                frame[name] = frame.get(name, 0) or value
                if partition:
                    partition.setdefault(name, value)
            elif name in OF_FRAME:
                frame.setdefault(name, value)
            elif name in OF_PARTITION and partition:
                partition.setdefault(name, value)
            elif name in OF_BATCH and batch:
                batch.setdefault(name, value)
            place += 1
        frames.append(frame)
    return frames, partitions, batches


def rows(columns: dict[str, Any]) -> list[Row]:
    """Columns as rows, without what is not said."""
    listed = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [{name: value for name, value in zip(columns, values, strict=True) if value != NONE} for values in listed]


@settings(max_examples=300, deadline=None)
@given(LOGS)
def test_tables_are_what_a_loop_over_the_log_finds(log: Log) -> None:
    frame, field, value = (
        np.array(
            [entry[place] for entry in ((number, FIELDS[name], said) for number, fields in enumerate(log) for name, said in fields)], kind
        )
        for place, kind in enumerate((np.int64, np.uint8, np.int64))
    )
    found = tabulate(len(log), frame, field, value)
    assert (rows(found.frames), rows(found.partitions), rows(found.batches)) == read(log)
    assert (tuple(found.frames), tuple(found.partitions), tuple(found.batches)) == (OF_FRAME, OF_PARTITION, OF_BATCH)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40), st.data())
def test_texts_are_decoded_wherever_they_stand(pool: bytes, data: st.DataObject) -> None:
    """Empty ones, those that are not there, those that overlap, and bytes that are no UTF-8."""
    starts = data.draw(st.lists(st.integers(0, len(pool)), max_size=8))
    sizes = [data.draw(st.integers(-1, len(pool) - start)) for start in starts]
    expected = [
        None if size < 0 else pool[at : at + size].decode("utf-8", "backslashreplace") for at, size in zip(starts, sizes, strict=True)
    ]
    found = decode(np.frombuffer(pool, np.uint8), np.array(starts, np.int64), np.array(sizes, np.int64))
    assert found.to_list() == expected
