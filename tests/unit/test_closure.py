"""The digest of a rule's code: which files count, and that their dates do not."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from brokerlens import closure

SCRIPTS = Path(__file__).resolve().parents[2] / "workflow" / "scripts"


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    files = {
        "job.py": "from brokerlens.kafka import frames\nimport numpy\n",
        "other.py": "import brokerlens.lonely\n",
        "brokerlens/__init__.py": "",
        "brokerlens/lonely.py": "",
        "brokerlens/tables.py": "",
        "brokerlens/typing_only.py": "",
        "brokerlens/later.py": "",
        "brokerlens/kafka/__init__.py": "from brokerlens import tables\n",
        "brokerlens/kafka/frames.py": (
            "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nfrom . import fields as f\nfrom ..tcp.order import anything\n"
            "if TYPE_CHECKING:\n    from brokerlens import typing_only\n\ndef late():\n    import brokerlens.later\n"
        ),
        "brokerlens/kafka/fields.py": "",
        "brokerlens/kafka/unused.py": "",
        "brokerlens/kafka/layouts.json": "{}",
        "brokerlens/kafka/templates/page.html": "",
        "brokerlens/tcp/__init__.py": "",
        "brokerlens/tcp/order.py": "import brokerlens.kafka.frames\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def digest(script: Path) -> str:
    for function in (closure.code_digest, closure._imports, closure._data_files, closure._file_digest):
        function.cache_clear()
    return closure.code_digest(script)


def test_the_closure_is_what_an_import_would_load_and_the_files_beside_it(scripts: Path) -> None:
    found = {path.relative_to(scripts).as_posix() for path in closure.closure(scripts / "job.py")}
    assert found == {
        "job.py",
        "brokerlens/__init__.py",
        "brokerlens/tables.py",
        "brokerlens/later.py",
        "brokerlens/kafka/__init__.py",
        "brokerlens/kafka/frames.py",
        "brokerlens/kafka/fields.py",
        "brokerlens/kafka/layouts.json",
        "brokerlens/kafka/templates/page.html",
        "brokerlens/tcp/__init__.py",
        "brokerlens/tcp/order.py",
    }


def test_every_file_of_the_closure_changes_the_digest_and_no_other_does(scripts: Path) -> None:
    members = closure.closure(scripts / "job.py")
    before = digest(scripts / "job.py")
    for path in sorted(path for path in scripts.rglob("*") if path.is_file()):
        text = path.read_bytes()
        path.write_bytes(text + b"\n# edited\n")
        assert (digest(scripts / "job.py") != before) == (path in members), path
        path.write_bytes(text)
        os.utime(path, (1, 1))
    assert digest(scripts / "job.py") == before


def test_the_digest_does_not_depend_on_the_place(scripts: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "scripts"
    subprocess.run(["cp", "-r", scripts, elsewhere], check=True)
    assert digest(elsewhere / "job.py") == digest(scripts / "job.py")


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.stem)
def test_the_closure_of_a_real_script_holds_every_module_of_ours_that_python_loads(script: Path) -> None:
    """The oracle is an import in a fresh Python, lazy imports aside."""
    listing = (
        f"import sys, runpy; runpy.run_path({str(script)!r}, run_name='imported'); "
        "print('\\n'.join(m.__file__ for n, m in list(sys.modules.items()) if n.split('.')[0] == 'brokerlens'))"
    )
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS), "NUMBA_DISABLE_JIT": "1"}
    loaded = subprocess.run([sys.executable, "-c", listing], env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert {Path(path) for path in loaded} <= closure.closure(script)
    assert all(ast.parse(path.read_text()) for path in closure.closure(script) if path.suffix == ".py")
