"""Snakemake, imported once and asked often: a process that forks for each question.

Importing Snakemake and its plugins is two thirds of what a dry run takes. A fork begins where that is done, goes on as `python -m snakemake`
would, and ends without a trace in any other.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import subprocess
import sys
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn


def ask(arguments: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What `python -m snakemake` with these arguments does in a folder."""
    waiting = _waiting()
    assert waiting.stdin and waiting.stdout
    with tempfile.TemporaryDirectory() as said:
        question = {"arguments": arguments, "folder": str(folder), "environment": environment, "said": said}
        waiting.stdin.write(json.dumps(question) + "\n")
        waiting.stdin.flush()
        code = int(waiting.stdout.readline())
        out, err = (Path(said, name).read_text() for name in ("out", "err"))
    return subprocess.CompletedProcess(arguments, code, out, err)


@cache
def _waiting() -> subprocess.Popen[str]:
    """The process that waits for questions; it ends with this one, or with its input."""
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.terminate)
    return process


def _become_snakemake(question: dict[str, Any]) -> NoReturn:
    """The rest of this process: it ends as Snakemake does."""
    os.chdir(question["folder"])
    os.environ.clear()
    os.environ.update(question["environment"])
    for descriptor, name in ((0, os.devnull), (1, f"{question['said']}/out"), (2, f"{question['said']}/err")):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT, 0o600), descriptor)
    sys.argv[1:] = question["arguments"]
    sys.path[0] = question["folder"]
    runpy.run_module("snakemake", run_name="__main__", alter_sys=True)
    raise AssertionError("Snakemake exits")


def _answer_all() -> None:
    """Read questions, a line each, and write their exit codes."""
    import_module("pandas")  # which Snakemake imports where it compares params
    from snakemake.cli import get_argument_parser

    get_argument_parser()  # which imports the plugins
    for line in sys.stdin:
        if (fork := os.fork()) == 0:
            _become_snakemake(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]), flush=True)


if __name__ == "__main__":
    _answer_all()
