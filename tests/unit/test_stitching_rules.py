"""Each rule of stitching is needed: without it these streams differ, with it none does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kafka_rules import RULES

HERE = Path(__file__).parent
# Found by `NUMBA_DISABLE_JIT=1 python tests/unit/kafka_rules.py RULE 1000 1001 …` (PYTHONPATH: workflow/scripts).
SEEDS = {
    "unknown response": (1031, 1051, 1062, 1085, 1095, 1121, 1171, 1215),
    "hole in a body": (1011, 1016, 1040, 1042, 1051, 1060, 1063, 1139),
    "trust": (1115, 1244, 1399, 1403, 1464, 1911),
    "captured later than seen": (0, 1, 2, 3, 4, 5),
    "first captured copy": (0, 1, 2, 3, 4, 5),
    "ties by content": (1, 4, 16, 17, 20, 23),
}


@pytest.mark.parametrize("rule", RULES)
def test_without_the_rule_streams_differ(rule: str) -> None:
    assert not [seed for seed in SEEDS[rule] if RULES[rule].differs(seed)]
    found = subprocess.run(
        [sys.executable, str(HERE / "kafka_rules.py"), rule, *map(str, SEEDS[rule])],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(HERE.parents[1] / "workflow" / "scripts")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert tuple(map(int, found.stdout.split())) == SEEDS[rule]
