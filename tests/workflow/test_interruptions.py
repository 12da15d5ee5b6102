"""Whatever ends a run in the middle: the next one comes to the same bytes as an undisturbed one."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from sites import read_pcap, shipped, write_pcap
from workbench import ROOT, Workbench, results

pytestmark = pytest.mark.kills
KILLS = int(os.environ.get("KILLS", "50"))
SEED = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
PACKETS = 300
EDGE, CLOUD = ["192.0.2.10:31289"], ["198.51.100.10:32289"]


def bench_in(folder: Path) -> Workbench:
    """A run of seconds: the first packets of three of the shipped captures."""
    folder.mkdir(exist_ok=True)
    for site, count in (("edge", 2), ("cloud", 1)):
        (folder / site).mkdir()
        for capture in shipped("experiment08", site)[2 : 2 + count]:
            header, records = read_pcap(capture)
            write_pcap(folder / site / capture.name, header, records[:PACKETS])
            os.utime(folder / site / capture.name, (1_700_000_000, 1_700_000_000))
    sites = {"edge": {"captures": "edge", "brokers": EDGE, "shards": 2}, "cloud": {"captures": "cloud", "brokers": CLOUD}}
    config = {"experiments": {"run1": {"sites": sites}}}
    (folder / "my.yaml").write_text(yaml.safe_dump(config))
    return Workbench(ROOT, folder, config)


def start(work: Path, *arguments: str, before: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Snakemake, leading a process group of its own; ``before`` stands before its command."""
    command = [*before, sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", str(work / "my.yaml"), "--directory", str(work)]
    return subprocess.Popen(
        [*command, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def run(work: Path, *arguments: str, before: Sequence[str] = ()) -> tuple[int, str]:
    """Exit code of Snakemake, and what it said."""
    process = start(work, *arguments, before=before)
    said = process.communicate()[0]
    return process.returncode, said


@dataclass(frozen=True)
class Undisturbed:
    """The files of an undisturbed run, how long it took, and how much room it wants."""

    results: dict[str, bytes]
    seconds: float
    bytes: int


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    work = bench_in(tmp_path_factory.mktemp("undisturbed")).work
    began = time.monotonic()
    code, said = run(work)
    assert code == 0, said
    room = sum(path.lstat().st_blocks * 512 for path in work.rglob("*"))
    return Undisturbed(results(work), time.monotonic() - began, room)


def jobs_of(work: Path) -> list[int]:
    """The processes that run a script of this run, or of one that was killed."""
    marker = str(work / ".snakemake" / "scripts").encode()
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else []
        except OSError:
            continue
        if words and b"python" in words[0] and any(word.startswith(marker) for word in words[1:]):
            found.append(int(folder.name))
    return found


def kill(work: Path, process: subprocess.Popen[str], chance: random.Random) -> str:
    """Kill a job, or Snakemake without its jobs, which work on, or all at once; what it was."""
    jobs = jobs_of(work)
    what = chance.choice(["job", "snakemake", "all"] if jobs else ["snakemake"])
    if what == "job":
        with contextlib.suppress(ProcessLookupError):  # it may have ended meanwhile
            os.kill(chance.choice(jobs), signal.SIGKILL)
    elif what == "snakemake":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    return what


def unlock(work: Path) -> None:
    """What the documentation says, where a lock was left; without that no run begins."""
    locks = work / ".snakemake" / "locks"
    if locks.is_dir() and any(locks.iterdir()):
        code, said = run(work)
        assert code != 0
        assert "--unlock" in said
        code, said = run(work, "--unlock")
        assert code == 0, said


def assert_whole(work: Path) -> None:
    """Every table that has its name is whole."""
    for path in (work / "results").rglob("*.parquet"):
        if not path.name.startswith("."):
            pq.ParquetFile(path).read()


def assert_as_undisturbed(found: dict[str, bytes], undisturbed: Undisturbed, *history: object) -> None:
    assert found.keys() == undisturbed.results.keys(), history
    assert [name for name, content in undisturbed.results.items() if found[name] != content] == [], history


def finish_in_spite_of_kills(work: Path, seconds: float, chance: random.Random) -> list[str]:
    """Run, and kill at a random moment, until a run comes to its end first; what was killed."""
    history: list[str] = []
    while True:
        process = start(work)
        moment = chance.uniform(0, seconds)
        try:
            said = process.communicate(timeout=moment)[0]
        except subprocess.TimeoutExpired:
            history.append(f"{kill(work, process, chance)} after {moment:.2f} s")
            if history[-1].startswith("job"):  # Snakemake comes to its own end; what else was killed has jobs that hold on to the pipe
                process.communicate()
            process.wait()
            assert_whole(work)
            unlock(work)
        else:
            assert process.returncode == 0, (history, said)
            return history


def test_killed_at_random_moments(undisturbed: Undisturbed, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    kills: list[str] = []
    while len(kills) < KILLS:
        work = bench_in(tmp_path / f"after-{len(kills)}").work
        history = finish_in_spite_of_kills(work, undisturbed.seconds, chance)
        assert_as_undisturbed(results(work), undisturbed, SEED, history)
        kills += history
        print(f"{len(kills)} of {KILLS} kills: the same bytes after {', '.join(history) or 'none'}", flush=True)
        shutil.rmtree(work)
    count = {what: sum(kill.startswith(what) for kill in kills) for what in ("job", "snakemake", "all")}
    print(f"{len(kills)} kills, seed {SEED}: {count['job']} of a job, {count['snakemake']} of Snakemake alone, {count['all']} of both")


@dataclass(frozen=True)
class Mounts:
    """A namespace of mounts that nobody else sees."""

    keeper: int

    @property
    def before(self) -> list[str]:
        """What stands before a command that is to see them."""
        return ["nsenter", "--target", str(self.keeper), "--mount", f"--wd={ROOT}", "--"]

    def mount(self, *options: str) -> None:
        subprocess.run([*self.before, "mount", *options], check=True)

    def seen(self, path: Path) -> Path:
        """A path in there, for those outside."""
        return Path(f"/proc/{self.keeper}/root{path}")


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    command = ["unshare", "--mount", "--propagation", "private"]
    if os.geteuid() != 0 or subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("root is needed, and the right to mount")
    keeper = subprocess.Popen([*command, "sleep", "infinity"])
    while Path(f"/proc/{keeper.pid}/comm").read_text().strip() != "sleep":
        time.sleep(0.01)
    yield Mounts(keeper.pid)
    keeper.kill()
    keeper.wait()


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_a_full_disk(share: float, undisturbed: Undisturbed, mounts: Mounts, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    mounts.mount("-t", "tmpfs", "-o", f"size={int(share * undisturbed.bytes)}", "tmpfs", str(work))
    bench_in(mounts.seen(work))
    code, said = run(work, before=mounts.before)
    assert code != 0
    assert "No space left" in said or "no space left" in said, said
    assert_whole(mounts.seen(work))
    mounts.mount("-o", f"remount,size={10 * undisturbed.bytes}", str(work))
    run(work, "--unlock", before=mounts.before)
    code, said = run(work, before=mounts.before)
    assert code == 0, said
    assert_as_undisturbed(results(mounts.seen(work)), undisturbed, share)


@pytest.mark.parametrize("until", ["nothing", "split_capture", "merge_site"])
def test_a_results_folder_that_cannot_be_written(until: str, undisturbed: Undisturbed, mounts: Mounts, tmp_path: Path) -> None:
    work = bench_in(tmp_path / "work").work
    (work / "results").mkdir()
    if until != "nothing":
        code, said = run(work, "--until", until)
        assert code == 0, said
    mounts.mount("--bind", str(work / "results"), str(work / "results"))
    mounts.mount("-o", "remount,ro,bind", str(work / "results"))
    code, said = run(work, before=mounts.before)
    assert code != 0
    assert "results" in said, said
    assert "mounted read-only" in said, said
    run(work, "--unlock")
    code, said = run(work)
    assert code == 0, said
    assert_as_undisturbed(results(work), undisturbed, until)
