"""What the frames' bodies say, from the log of their fields: one row per partition, per record batch, and per frame."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
import pyarrow as pa

from brokerlens.kafka.layouts import FIELDS
from brokerlens.kafka.tabulate import NONE, gather, tabulate
from brokerlens.pseudonyms import AS_THEY_ARE, Pseudonyms

if TYPE_CHECKING:
    from brokerlens.kafka.frames import Fields

METADATA: Final = 3
CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
WANTED: Final = (
    "acks",
    "base_offset",
    "batch_attributes",
    "batch_base_offset",
    "batch_base_sequence",
    "batch_base_timestamp",
    "batch_count",
    "batch_end",
    "batch_last_offset_delta",
    "batch_magic",
    "batch_producer_epoch",
    "batch_producer_id",
    "batch_size",
    "cluster_id",
    "error_code",
    "fetch_offset",
    "forgotten_partition",
    "forgotten_topic",
    "forgotten_topic_id",
    "high_watermark",
    "max_wait_ms",
    "partition",
    "replica_id",
    "session_epoch",
    "session_id",
    "software_name",
    "software_version",
    "throttle_time_ms",
    "topic",
    "topic_id",
)
"""The fields of `layouts.FIELD_NAMES` that rows are made of."""
Spelling = Callable[[bytes], "str | None"]


def topic_id(raw: bytes) -> str | None:
    """A topic id as Kafka prints it: URL-safe base64 without padding; null where it is all zero."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode() if raw.strip(b"\0") else None


def readable(raw: bytes) -> str:
    """Text as it stands on the wire; bytes that are no UTF-8 as ``\\xNN``."""
    return raw.decode("utf-8", "backslashreplace")


def _distinct(pool: np.ndarray, start: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, list[bytes]]:
    """The texts at ``pool[start : start + size]``: the place of each among the distinct ones, and those."""
    length = size.astype(np.int64)
    ends, data = np.concatenate([[0], np.cumsum(length)]), gather(pool, start, length)
    encoded = pa.Array.from_buffers(pa.large_binary(), len(length), [None, pa.py_buffer(ends), pa.py_buffer(data)]).dictionary_encode()
    return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()


def decode(pool: np.ndarray, start: np.ndarray, size: np.ndarray, spell: Spelling = readable) -> pl.Series:
    """The texts at ``pool[start : start + size]`` as strings, each as ``spell`` has it; null where size < 0."""
    place = np.full(len(size), -1)
    present = np.flatnonzero(size >= 0)
    place[present], distinct = _distinct(pool, start[present], size[present])
    return pl.Series([*map(spell, distinct)], dtype=pl.String).gather(known(place))


def known(places: np.ndarray) -> pl.Series:
    """Places to gather from, null where negative."""
    return pl.Series(places).to_frame("place").select(pl.when(pl.col("place") >= 0).then("place"))["place"]


def lists(values: pl.DataFrame | pl.Series, owner: np.ndarray, owners: int) -> pl.Series:
    """Per owner the list of its values, null where it has none; ``owner`` of each value, ascending."""
    offsets = np.searchsorted(owner, np.arange(owners + 1))
    items = values.to_struct() if isinstance(values, pl.DataFrame) else values
    listed = pl.Series(pa.LargeListArray.from_arrays(pa.array(offsets), items.to_arrow()))
    return listed.to_frame("list").select(pl.when(pl.col("list").list.len() > 0).then("list"))["list"]


@dataclass(frozen=True)
class Contents:
    """What the bodies of a number of frames say.

    The log of fields by columns: ``frame``, ``field``, ``value`` and ``word``, the place of a text or id in ``words`` (sorted, each once), -1 none. ``frames`` has a row per frame:
    acks, throttle_ms, max_wait_ms, replica_id, session_id, session_epoch, error_code (the first that is not 0), partitions (their number). ``partitions`` has a row
    per partition that a Produce or Fetch body names: frame, topic (name or id), partition, error_code, base_offset, fetch_offset, high_watermark. ``batches`` has a row per
    whole record batch or old message: frame, number (of its partition), magic, base_offset, size, end (position behind it in its stream), attributes, last_offset_delta,
    base_timestamp, producer_id, producer_epoch, base_sequence, count; an old message has magic 0 or 1 and nulls from last_offset_delta on, a batch of a producer without
    id nulls in the producer's three.
    """

    frame: np.ndarray
    field: np.ndarray
    value: np.ndarray
    word: np.ndarray
    words: pl.Series
    frames: pl.DataFrame
    partitions: pl.DataFrame
    batches: pl.DataFrame

    def rows(self, *names: str, of_frames: np.ndarray | None = None) -> pl.DataFrame:
        """The log's rows of the named fields (of frames that are True), in the order of the wire: frame, field, value, text."""
        chosen = np.isin(self.field, [FIELDS[name] for name in names])
        if of_frames is not None:
            chosen &= of_frames[self.frame]
        log = {"frame": self.frame[chosen], "field": self.field[chosen], "value": self.value[chosen]}
        return pl.DataFrame(log).with_columns(self.words.gather(known(self.word[chosen])).alias("text"))

    def topics(self, owner_of_frame: np.ndarray, owners: int) -> pl.Series:
        """Per owner the sorted names and ids of the topics of its frames, null where they name none; ``owner_of_frame`` is -1 for frames of nobody."""
        named = np.flatnonzero(np.isin(self.field, (FIELDS["topic"], FIELDS["topic_id"])) & (self.word >= 0))
        owner = owner_of_frame[self.frame[named]]
        pairs = np.unique((owner * len(self.words) + self.word[named])[owner >= 0])
        owner, word = np.divmod(pairs, max(len(self.words), 1))
        return lists(self.words.gather(word), owner, owners)


def spellings(hide: Pseudonyms) -> dict[tuple[str, ...], Spelling]:
    """How outputs show the texts of fields that have some, by the fields."""

    def topic_ids(raw: bytes) -> str | None:
        text = topic_id(raw)
        return None if text is None else hide.name("topic-id", text)

    return {
        ("topic", "forgotten_topic"): lambda raw: hide.name("topic", readable(raw)),
        ("topic_id", "forgotten_topic_id"): topic_ids,
        ("cluster_id",): lambda raw: hide.name("cluster", readable(raw)),
        ("host",): lambda raw: hide.name("host", readable(raw)),
        ("software_name", "software_version"): lambda raw: hide.software(readable(raw)),
    }


def read_contents(fields: Fields, frames: int, hide: Pseudonyms = AS_THEY_ARE) -> Contents:
    """The tables of a log of fields of so many frames; names in it as ``hide`` shows them."""
    spelled: list[str | None] = []
    word = np.full(len(fields.field), -1)
    for names, spell in spellings(hide).items():
        rows = np.flatnonzero(np.isin(fields.field, [FIELDS[name] for name in names]) & (fields.text_size >= 0))
        place, distinct = _distinct(fields.text, fields.text_from[rows], fields.text_size[rows])
        word[rows] = place + len(spelled)
        spelled += map(spell, distinct)
    words = sorted({text for text in spelled if text is not None})
    rank = {text: place for place, text in enumerate(words)} | {None: -1}
    word = np.array([*(rank[text] for text in spelled), -1])[word]

    tables = tabulate(frames, fields.frame, fields.field, fields.value)
    topic = tables.partitions.pop("topic")
    named = np.where(topic >= 0, word[topic], -1) if len(word) else topic
    texts = pl.Series(words, dtype=pl.String)
    return Contents(
        frame=fields.frame,
        field=fields.field,
        value=fields.value,
        word=word,
        words=texts,
        frames=nullable(tables.frames).rename({"throttle_time_ms": "throttle_ms"}),
        partitions=nullable(tables.partitions).with_columns(texts.gather(known(named)).replace("", None).alias("topic")),
        batches=nullable(tables.batches).rename(lambda name: name.removeprefix("batch_")),
    )


def nullable(columns: dict[str, np.ndarray]) -> pl.DataFrame:
    """Columns of `tabulate` as a table, null where nothing is said."""
    return pl.DataFrame(columns).with_columns(pl.when(pl.all() != NONE).then(pl.all()))


def forgotten_partitions(contents: Contents) -> pl.DataFrame:
    """One row per partition that a Fetch request takes out of its session: frame, topic, partition."""
    rows = contents.rows("forgotten_topic", "forgotten_topic_id", "forgotten_partition")
    is_partition = pl.col("field") == FIELDS["forgotten_partition"]
    # A topic that is null must not leave its partitions to the topic before it.
    topic = pl.when(~is_partition).then(pl.col("text").fill_null("")).forward_fill().replace("", None)
    return rows.with_columns(topic.alias("topic")).filter(is_partition).select("frame", "topic", pl.col("value").alias("partition"))


def records(found: pl.DataFrame) -> pl.DataFrame:
    """Per frame the records, bytes and codec of its ``batches``.

    An old message is one record, but its compressed wrapper holds a number that only decompression tells: then null.
    """
    codec, is_message = pl.col("attributes") & 7, pl.col("magic") < 2
    uncounted = is_message.any() & ((codec.first() != 0) | (codec.n_unique() > 1))
    spelled = codec.first().replace_strict(dict(enumerate(CODECS)), default=None, return_dtype=pl.String)
    return found.group_by("frame", maintain_order=True).agg(
        pl.col("size").sum().alias("record_bytes"),
        pl.when(~uncounted).then(pl.col("count").sum() + is_message.sum().cast(pl.Int64)).alias("record_count"),
        pl.when(codec.n_unique() > 1).then(pl.lit("mixed")).otherwise(spelled).alias("codec"),
        *(pl.col(name).first() for name in ("producer_id", "producer_epoch", "base_sequence")),
    )


def client_software(frames: pl.DataFrame, contents: Contents) -> pl.DataFrame:
    """Per connection the first client software that an ApiVersions request names, as ``name version``."""
    words = (
        contents.rows("software_name", "software_version")
        .group_by("frame", maintain_order=True)
        .agg(pl.col("text").str.join(" ").alias("client_software"))
        .filter(pl.col("client_software").str.len_bytes() > 1)
    )
    return (
        words.with_columns(frames["connection"].gather(words["frame"]).alias("connection"))
        .group_by("connection", maintain_order=True)
        .agg(pl.col("client_software").first())
    )


def learned_topics(frames: pl.DataFrame, contents: Contents) -> pl.DataFrame:
    """What Metadata answers say: ``cluster_id, topic_id, topic, learned_at`` (ns), the earliest answer of each that differs.

    An answer without topics, or from before topics had ids, has a row with a null id where it names its cluster.
    """
    is_answer = ((pl.col("api_key") == METADATA) & (pl.col("side") == 1)).fill_null(value=False)
    answers = frames.filter(is_answer).select("frame", pl.col("first_time").alias("learned_at"))
    said = contents.rows("topic", "topic_id", "cluster_id", of_frames=frames.select(is_answer).to_series().to_numpy())
    clusters = said.filter(pl.col("field") == FIELDS["cluster_id"]).select("frame", pl.col("text").alias("cluster_id"))
    topics = (
        said.with_columns(pl.when(pl.col("field") == FIELDS["topic"]).then("text").shift(1).over("frame").alias("topic"))
        .filter(pl.col("field") == FIELDS["topic_id"])
        .select("frame", pl.col("text").alias("topic_id"), "topic")
        .drop_nulls()
    )
    return earliest(
        answers.join(clusters, on="frame", how="left")
        .join(topics, on="frame", how="left")
        .filter(pl.col("cluster_id").is_not_null() | pl.col("topic_id").is_not_null())
        .select("cluster_id", "topic_id", "topic", "learned_at")
    )


def earliest(learned: pl.DataFrame) -> pl.DataFrame:
    """Of what was learned the earliest answer of each that differs, in the order of time."""
    ordered = learned.sort("learned_at", "topic_id", "topic", "cluster_id", nulls_last=True)
    return ordered.unique(["cluster_id", "topic_id", "topic"], keep="first", maintain_order=True)
