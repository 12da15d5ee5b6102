"""Captures in S3-compatible storage: what a folder, a glob or a file there stands for, from one listing.

Fetching them is Snakemake's storage plugin's business, whose client lists them here, too. It is no dependency of the workflow: its import would be paid at every start.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

SCHEME: Final = "s3://"
PLUGIN: Final = "snakemake_storage_plugin_s3"
INSTALL: Final = ".venv/bin/pip install --require-hashes -r requirements-s3.txt"
MAGIC: Final = re.compile(r"[*?[]")
VISIBLE: Final = r"(?!\.)"
FOLDERS: Final = rf"(?:{VISIBLE}[^/]*/)*"
CAUSES: Final = {
    "NoSuchBucket": "there is no such bucket at that address",
    "AccessDenied": "these credentials may not list it",
    "InvalidAccessKeyId": "the storage does not know this access key",
    "SignatureDoesNotMatch": "the secret key does not fit the access key",
    "InvalidBucketName": "that is no name of a bucket",
}
"""What the storage's error codes mean."""
ADVICE: Final = "docs/remote.md says how address and credentials are given."


class RemoteError(Exception):
    """The storage cannot be asked, or does not let us; the message says why and what to do."""


class Object(NamedTuple):
    """An object of the listing; ``modified`` in seconds since 1970."""

    path: str
    bytes: int
    modified: int


def is_remote(place: str) -> bool:
    """Whether a place of the configuration is in S3-compatible storage."""
    return place.startswith(SCHEME)


def list_objects(place: str, client: Callable[[], Any]) -> list[Object]:
    """The objects that a place stands for: all that lie directly in a folder (``s3://bucket/folder/``), what a glob matches, or one object.

    ``client`` makes boto3's S3 client; it is asked only where there is a plugin to make it.
    """
    bucket, _, key = place.removeprefix(SCHEME).partition("/")
    if importlib.util.find_spec(PLUGIN) is None:
        raise RemoteError(f"{place} needs Snakemake's S3 plugin, which is not installed: {INSTALL}")
    begin = MAGIC.split(key, maxsplit=1)[0]
    is_glob = begin != key
    inside = {} if is_glob or (key and not key.endswith("/")) else {"Delimiter": "/"}
    listed = [found for found in _listing(place, client, Bucket=bucket, Prefix=begin, **inside) if not found.path.endswith("/")]
    if is_glob:
        matches = pattern(key)
        return [found for found in listed if matches.fullmatch(found.path.removeprefix(f"{SCHEME}{bucket}/"))]
    if key and not key.endswith("/"):
        exact = [found for found in listed if found.path == place]
        return exact or list_objects(f"{place}/", client)
    return listed


def _listing(place: str, client: Callable[[], Any], **asked: str) -> Iterator[Object]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        for page in client().get_paginator("list_objects_v2").paginate(**asked):
            for entry in page.get("Contents", ()):
                yield Object(f"{SCHEME}{asked['Bucket']}/{entry['Key']}", int(entry["Size"]), int(entry["LastModified"].timestamp()))
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        raise RemoteError(f"{place} cannot be listed: {CAUSES.get(code, str(error))} ({code}). {ADVICE}") from error
    except BotoCoreError as error:
        raise RemoteError(f"{place} cannot be listed: {str(error).rstrip('.')}. {ADVICE}") from error


def pattern(key: str) -> re.Pattern[str]:
    """A glob as `glob.glob` reads it, for whole keys: `*`, `?` and `[...]` stay in their folder, `**` does not; none finds a name that begins with a dot."""
    *above, name = key.split("/")
    folders = [FOLDERS if part == "**" else f"{_part(part)}/" for part in above]
    return re.compile("".join(folders) + (f"{FOLDERS}{VISIBLE}[^/]*" if name == "**" else _part(name)), re.DOTALL)


def _part(part: str) -> str:
    def translated(found: re.Match[str]) -> str:
        match found[0]:
            case "*":
                return "[^/]*"
            case "?":
                return "[^/]"
            case character if len(character) == 1:
                return re.escape(character)
            case characters:
                # What the standard library makes of a class; no class leaves its folder.
                return "(?!/)" + fnmatch.translate(characters).removeprefix("(?s:").rpartition(")")[0]

    shown = VISIBLE if MAGIC.match(part) else ""
    return shown + re.sub(r"\[!?\]?[^\]]*\]|.", translated, part, flags=re.DOTALL)


def unaskable(path: str) -> bool:
    """Whether the plugin would ask for another object: it takes paths for addresses and tidies them up."""
    parts = urlsplit(path)
    key = path.removeprefix(SCHEME).partition("/")[2]
    return bool(parts.query or parts.fragment) or any(part in ("", ".", "..") for part in key.split("/"))
