"""The machine and the place: versions, Wireshark's programs, compiled kernels, folders, locks."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from brokerlens.doctor.findings import Finding
from brokerlens.wireshark import tools

PYTHONS: Final = ((3, 11), (3, 13))
"""The first and the last version that the pins are made for."""


def versions(requirements: Path) -> list[Finding]:
    """Python and the packages that a run imports, beside the pins of ``requirements.in``, whose tools for tests are left out."""
    if not requirements.is_file():
        return [_python(), Finding("note", "packages", f"their pins are not beside the workflow: there is no {requirements}")]
    return [_python(), *_packages(requirements.read_text(encoding="utf-8"))]


def _packages(requirements: str) -> list[Finding]:
    pins = re.findall(r"^([a-z0-9-]+)==(\S+)$", requirements.partition("# Checks and tests.")[0], re.MULTILINE)
    found = {name: _installed(name) for name, _ in pins}
    missing = [name for name, version in found.items() if version is None]
    other = [f"{name} {found[name]} instead of {version}" for name, version in pins if found[name] not in (None, version)]
    good = ", ".join(f"{name} {version}" for name, version in pins if found[name] == version)
    findings = []
    if good:
        findings.append(Finding("ok", "packages", f"{good}, as pinned"))
    if other:
        findings.append(
            Finding("note", "packages", f"{', '.join(other)}: figures may differ from others'", "`make env` installs the pinned versions.")
        )
    if missing:
        findings.append(Finding("problem", "packages", f"not installed: {', '.join(missing)}", "`make env` installs the pinned versions."))
    return findings


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> Finding:
    first, last = PYTHONS
    text = f"{platform.python_version()} at {sys.executable}"
    if first <= sys.version_info[:2] <= last:
        return Finding("ok", "Python", text)
    supported = " to ".join(f"{major}.{minor}" for major, minor in PYTHONS)
    return Finding("note", "Python", f"{text}; tested are {supported}", f"Use one of {supported}, as in `make env PYTHON=python3.12`.")


def wireshark(needed_by: Sequence[str]) -> Finding:
    """Whether tshark is there; ``needed_by`` are the sites that cannot do without, each with the reason."""
    needs = f"needed by {', '.join(needed_by)}" if needed_by else "needed by nothing here but `snakemake verify`"
    if not tools.installed():
        return Finding("problem" if needed_by else "note", "tshark", f"not installed; {needs}", f"Install it: {tools.INSTALL}.")
    try:
        said = subprocess.run(
            [tools.find("tshark"), "--version"], capture_output=True, text=True, errors="replace", timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(
            "problem" if needed_by else "note", "tshark", f"cannot be started ({error}); {needs}", f"Install it anew: {tools.INSTALL}."
        )
    version = re.search(r"\d+\.\d+\.\d+", said.stdout)
    return Finding("ok", "tshark", f"{version[0] if version else 'of an unknown version'}; {needs}")


def kernels(cache: str | Path) -> Finding:
    """Whether the compiled kernels are there."""
    if (Path(cache) / "compiled").exists():
        return Finding("ok", "kernels", f"compiled, in {cache}")
    return Finding(
        "note", "kernels", f"not compiled yet in {cache}: the first job takes one to three minutes longer", "`make env` does it ahead."
    )


def folders(results: Path) -> list[Finding]:
    """Whether results can be written, and whether another run is at work there."""
    there = next(path for path in (results, *results.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            findings = [Finding("ok", "results", f"can be written, in {results.absolute()}")]
    except OSError as error:
        findings = [
            Finding(
                "problem",
                "results",
                f"nothing can be written in {there.absolute()}: {error.strerror}",
                "Mend its rights, or choose another folder with --directory.",
            )
        ]
    return [*findings, *_locks(Path(".snakemake/locks").absolute())]


def _locks(folder: Path) -> list[Finding]:
    """Locks of other runs: the doctor's own names no file."""
    held = [path for path in sorted(folder.glob("*.lock")) if _size(path)] if folder.is_dir() else []
    if not held:
        return [Finding("ok", "lock", "no other run has locked this folder")]
    return [
        Finding(
            "problem",
            "lock",
            f"another run has locked this folder ({folder}), or one was killed and left its lock",
            "Wait until it has ended. If none is at work, run the same command with --unlock in the place of the target, then again.",
        )
    ]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def needs_of(sites: Sequence[Mapping[str, object]]) -> list[str]:
    """The sites that need tshark, each with the reason."""
    reasons = {"decoder": "decoder: wireshark", "keys": "tls_keylog"}
    wanting = []
    for site in sites:
        why = [reasons["decoder"]] * (site["decoder"] == "wireshark") + [reasons["keys"]] * bool(site["keys"])
        if why:
            wanting.append(f"{site['experiment']}/{site['site']} ({', '.join(why)})")
    return wanting
