"""Decode packets of one capture by the native reader and by Wireshark, and write how far they agree."""

from brokerlens import job  # isort: skip  # first: it tells the libraries below how many threads they may use

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brokerlens.pseudonyms import AS_THEY_ARE, Pseudonyms, of_job
from brokerlens.wireshark.agreement import agreement

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


HASHES = ("header_hash", "notebook_id", "payload")
"""Fields whose values may give away what they were made from."""


def verify_capture(
    *, capture: str, brokers: Sequence[str], sample: int | None, output: str, name: str = "", hide: Pseudonyms = AS_THEY_ARE
) -> None:
    """Write what ``agreement`` finds, and the capture as outputs show it, as JSON; ``sample`` None is all packets, ``name`` the capture's where names are hidden."""
    found = {"capture": hide.capture(name) if hide else capture, **agreement(capture, brokers, sample)}
    if hide:
        found["fields"] = {field: shown(field, values, hide) for field, values in found["fields"].items()}
    Path(output).write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def shown(field: str, values: Mapping[str, Any], hide: Pseudonyms) -> dict[str, Any]:
    """A field's agreements and differences with examples that name nobody."""

    def value(text: str) -> str:
        return hide.endpoint(text) if field in ("client", "broker") else "hidden" if field in HASHES else text

    differences = {
        outcome: {
            **found,
            "examples": [{**one, "native": value(one["native"]), "wireshark": value(one["wireshark"])} for one in found["examples"]],
        }
        for outcome, found in values["differences"].items()
    }
    return {**values, "differences": differences}


if __name__ == "__main__":
    with job.logged(snakemake):
        verify_capture(
            capture=snakemake.input.capture,
            brokers=snakemake.params.verify["brokers"],
            sample=snakemake.params.verify["sample"],
            output=snakemake.output.found,
            name=snakemake.params.capture,
            hide=of_job(snakemake.params.names),
        )
