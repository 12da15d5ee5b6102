"""What every job does around its work: threads, the cache of compiled kernels, the log, errors as one message.

Import this before anything that starts threads or compiles: it reads the job's ``threads`` from the ``snakemake`` object that Snakemake
puts into ``__main__`` and tells them to numba, polars, Arrow and BLAS by the environment, which they read once, at their import.
"""

from __future__ import annotations

import __main__
import atexit
import contextlib
import errno
import fcntl
import gc
import hashlib
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from brokerlens.errors import LONGEST_MESSAGE, UserError, inert

PACKAGE = Path(__file__).parent
THREAD_VARIABLES = (
    "POLARS_MAX_THREADS",
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ARROW_IO_THREADS",
)


def limit_threads(threads: int) -> None:
    """Tell every library of the job how many threads it may use; to be called before they are imported."""
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)


def take_memory_from_the_system() -> None:
    """Let Arrow take memory as the C library gives it, and numpy in pages of usual size, unless the user's environment says otherwise.

    Arrow's own pool gives memory back to the kernel again and again, which a merge spent a seventh of its time on; what writes working files has a pool of its own. For large pages, which numpy asks for, the
    kernel has to move others out of the way: for arrays that are written once another seventh.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")


def collect_less_garbage() -> None:
    """Look for garbage less often, and not at the end: the libraries' objects, of which there are hundreds of thousands, all live until then."""
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)


def kernel_digest() -> str:
    """A digest of the rooms that hold compiled kernels, their modules about data frames left out: numba's own cache misses edits in imported modules."""
    code = {path: path.read_bytes() for path in PACKAGE.rglob("*.py")}
    rooms = {path.parent for path in code if b"njit" in code[path]} - {PACKAGE}
    digest = hashlib.sha256()
    for path in sorted(path for path in code if path.parent in rooms and b"import polars" not in code[path]):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + code[path] + b"\0")
    return digest.hexdigest()[:16]


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def kernel_cache() -> Path:
    """The folder of compiled kernels: beside the workflow, else in the user's cache, else a temporary one; kept apart by digest."""
    beside = PACKAGE.parents[2] / ".numba_cache"
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "brokerlens"
    digest = kernel_digest()
    for root in (beside, user):
        if _writable(root / digest):
            return root / digest
    return Path(tempfile.mkdtemp(prefix="brokerlens-kernels-"))


def use_kernel_cache() -> None:
    """Point numba at the kernel cache, unless the user's environment names one."""
    if "NUMBA_CACHE_DIR" not in os.environ:
        os.environ["NUMBA_CACHE_DIR"] = str(kernel_cache())


def compile_kernels_once() -> None:
    """Compile all kernels into the cache if nobody has yet; jobs that start meanwhile wait instead of compiling the same."""
    cache = Path(os.environ["NUMBA_CACHE_DIR"])
    compiled = cache / "compiled"
    if compiled.exists():
        return
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if compiled.exists():
            return
        path = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-m", "brokerlens.warm"], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            compiled.touch()
        else:  # not fatal: this job then compiles what it needs, and says here what went wrong
            logging.getLogger("brokerlens").warning("kernels could not be compiled ahead: %s", done.stderr.strip()[-2000:])


def _alone(log: IO[str], terminal: int) -> float:
    """Lock the job's log until the process ends, and wait for who else holds it, which ``terminal`` is told; seconds waited.

    Some file systems of clusters have no locks, or lose them.
    """
    with contextlib.suppress(OSError):
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            began = time.monotonic()
            with contextlib.suppress(OSError):  # the terminal may be gone
                os.write(terminal, f"{log.name}: waiting for the same job of an earlier run, which is still at work\n".encode())
            fcntl.flock(log, fcntl.LOCK_EX)
            return time.monotonic() - began
    return 0.0


@contextlib.contextmanager
def logged(snakemake: Any) -> Iterator[None]:
    """Run a job's work with everything it prints in the rule's log; an error the user can act on ends it with that message alone.

    The same job of an earlier run may be at work still, where its Snakemake was killed or its node cut off: this one waits until it has ended.
    """
    terminal = os.dup(2)
    with Path(snakemake.log[0]).open("a", buffering=1) as log:
        waited = _alone(log, terminal)
        log.truncate(0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    if waited:
        logging.getLogger("brokerlens").info("waited %.1f s for the same job of an earlier run, which was still at work", waited)
    began = time.monotonic()
    try:
        yield
    except UserError as error:
        print(f"error: {inert(str(error), LONGEST_MESSAGE)}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            message = f"error: no space left on the disk of {error.filename or Path.cwd()}: free some and run the same command again\n"
            os.write(terminal, message.encode())  # the log may be on that disk
        else:
            traceback.print_exc()
        sys.exit(1)
    used = resource.getrusage(resource.RUSAGE_SELF)
    logging.getLogger("brokerlens").info(
        "%s done in %.2f s, %.2f s of processors, at most %.0f MB",
        snakemake.rule,
        time.monotonic() - began,
        used.ru_utime + used.ru_stime,
        used.ru_maxrss / 1000,
    )


_job = getattr(__main__, "snakemake", None)
if _job is not None:
    limit_threads(_job.threads)
take_memory_from_the_system()
collect_less_garbage()
use_kernel_cache()
if _job is not None:
    if _job.params.get("interpreted"):  # a job of few packets, which shall not wait a minute for the compiler
        os.environ["NUMBA_DISABLE_JIT"] = "1"
    else:
        compile_kernels_once()
