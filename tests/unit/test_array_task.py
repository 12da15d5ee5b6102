"""Which command a task of a SLURM array runs, from what the SLURM executor sends."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from brokerlens.array_task import OPTION, own_command

SCRIPTS = Path(__file__).resolve().parents[2] / "workflow" / "scripts"
COMMANDS = {"2": "echo second", "3": "echo 'the third' \"one\""}


def sent(commands: dict[str, str]) -> str:
    """As the executor writes them (run_array_jobs in snakemake_executor_plugin_slurm 2.8.0)."""
    compressed = {task: zlib.compress(command.encode(), level=9).hex() for task, command in commands.items()}
    return base64.b64encode(json.dumps(compressed).encode()).decode()


@pytest.mark.parametrize("form", [[OPTION, sent(COMMANDS)], [f"{OPTION}={sent(COMMANDS)}"]], ids=["two words", "one word"])
def test_a_task_finds_its_own_command(form: list[str]) -> None:
    arguments = ["snakemake", "--executor", "slurm-jobstep", *form]
    assert [own_command(arguments, {"SLURM_ARRAY_TASK_ID": task}) for task in "123"] == [None, "echo second", "echo 'the third' \"one\""]


def test_what_is_no_task_of_an_array_stays_what_it_is() -> None:
    assert own_command(["snakemake", OPTION, sent(COMMANDS)], {}) is None
    assert own_command(["snakemake", "--cores", "1"], {"SLURM_ARRAY_TASK_ID": "2"}) is None


def test_the_process_becomes_its_own_command() -> None:
    program = "import sys; from brokerlens import array_task; array_task.become_own_job(sys.argv); print('not replaced')"
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS), "SLURM_ARRAY_TASK_ID": "3"}
    done = subprocess.run(
        [sys.executable, "-c", program, OPTION, sent(COMMANDS)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "the third one\n"
