"""What a run published, and whose names it shows: results with names and results with pseudonyms are never in one folder.

Working files (`intermediate/`) have the real names either way, for the owner only.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Final

from brokerlens.errors import UserError

WORKING: Final = "intermediate"
STATE: Final = "+pseudonyms"
"""In the folder of working files: the digest of the secret behind the pseudonyms of what is published; no such file where names are shown."""
OF_JOBS: Final = ("logs", "benchmarks")
"""What jobs say about themselves: kept with the working files where names are hidden, because messages and names of files show them."""
NEITHER: Final = frozenset({WORKING, "README.md", *OF_JOBS})


def state(results: Path) -> str:
    """Behind the pseudonyms in what is published there: the digest of their secret; "" where names are shown, or nothing is there."""
    try:
        return (results / WORKING / STATE).read_text(encoding="ascii")
    except FileNotFoundError:
        return ""


def begin(results: Path, now: str, places: Collection[str], made: Collection[str], taken: Collection[str]) -> list[str]:
    """Make the results folder ready for a run whose outputs have pseudonyms by the secret of digest ``now`` ("": show names); what there is to say of that.

    Where the run before showed others, what it published goes, since a run may fail, or make a part of the results alone. ``places`` are the names in that folder that the
    workflow writes to, ``made`` the outputs and benchmarks of the run's jobs, ``taken`` those of jobs whose results it takes as they are: UserError where that would leave one that was
    published before.
    """
    places = set(places) - NEITHER
    before = state(results)
    if now:
        (results / WORKING).mkdir(mode=0o700, parents=True, exist_ok=True)
        (results / WORKING).chmod(0o700)
    makes_nothing = not any(_place(path, results) in {*places, *OF_JOBS, *([WORKING] if now else ())} for path in made)
    if now and (before == now or not makes_nothing):
        _keep_apart(results, results / WORKING)
    if before == now or makes_nothing:
        return []
    left = sorted(path for path in taken if _place(path, results) in places and os.path.lexists(path))
    if left:
        raise UserError(
            f"anonymize: found {left[0]}{f' and {len(left) - 1} more' if len(left) > 1 else ''} from before it was switched, which this run would take as made. "
            "Run without --rerun-triggers, or remove that folder."
        )
    gone = [name for name in sorted(places) if _remove(results / name)]
    if not now:
        _keep_apart(results / WORKING, results)
    _mark(results / WORKING / STATE, now)
    unknown = sorted(path.name for path in results.iterdir() if path.name not in NEITHER) if now and results.is_dir() else []
    return [
        *(
            [
                f"anonymize {'has another secret' if before and now else 'was switched'}: removed what {results} had published before ({', '.join(gone)})"
            ]
            if gone
            else []
        ),
        *([f"anonymize: not of this workflow, left as they are, and may show names: {', '.join(unknown)} in {results}"] if unknown else []),
    ]


def _place(path: str, results: Path) -> str:
    """The name in the results folder that a path begins with, "" elsewhere."""
    parts = Path(path).parts
    return parts[len(results.parts)] if parts[: len(results.parts)] == results.parts and len(parts) > len(results.parts) else ""


def _keep_apart(source: Path, target: Path) -> None:
    """Move what jobs said about themselves from one folder to another, over what an earlier run left there."""
    for name in OF_JOBS:
        for path in sorted((source / name).rglob("*")):
            if not path.is_dir():
                moved = target / path.relative_to(source)
                moved.parent.mkdir(parents=True, exist_ok=True)
                path.replace(moved)
        shutil.rmtree(source / name, ignore_errors=True)


def _remove(path: Path) -> bool:
    """Whether there was something to remove."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
    else:
        return False
    return True


def _mark(path: Path, now: str) -> None:
    if now:
        path.write_text(now, encoding="ascii")
    else:
        path.unlink(missing_ok=True)
