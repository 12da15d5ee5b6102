"""A task of a SLURM array becomes the job that it is.

The SLURM executor starts every task of an array by the command of the array's first job; the commands of the others follow as an option. Snakemake then runs the task's
own command, but looks for the first job's outputs afterwards: a task that ends before the first one fails, and one that fails removes the first one's outputs
(snakemake-executor-plugin-slurm, issue 447). So the process is replaced by the task's own command before Snakemake knows which jobs there are.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import zlib
from collections.abc import Mapping, Sequence

OPTION = "--slurm-jobstep-array-execs"


def own_command(arguments: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """The shell command of this task; None where this is no task of an array, or its first one."""
    task = environment.get("SLURM_ARRAY_TASK_ID")
    given = [value for option, value in itertools.pairwise(arguments) if option == OPTION]
    given += [argument.removeprefix(f"{OPTION}=") for argument in arguments if argument.startswith(f"{OPTION}=")]
    if task is None or not given:
        return None
    compressed = json.loads(base64.b64decode(given[0])).get(task)
    return None if compressed is None else zlib.decompress(bytes.fromhex(compressed)).decode()


def become_own_job(arguments: Sequence[str]) -> None:
    """Replace this process by the task's own command, if it has one."""
    if command := own_command(arguments, os.environ):
        os.execv("/bin/sh", ["sh", "-c", command])  # noqa: S606  # the command is the executor's own
