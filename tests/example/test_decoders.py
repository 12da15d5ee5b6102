"""Both decoders, one result: what the shipped captures give does not depend on who read the packets."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal
from sites import BROKERS, run_site, shipped


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
@pytest.mark.parametrize("site", ["edge", "cloud"])
@pytest.mark.parametrize("experiment", ["experiment07", "experiment08"])
def test_both_decoders_give_the_same_data_sets(experiment: str, site: str, tmp_path: Path) -> None:
    native, wireshark = (
        run_site(shipped(experiment, site), BROKERS[site], tmp_path / decoder, decoder=decoder) for decoder in ("native", "wireshark")
    )
    assert native.requests.height > 100
    for data_set in ("requests", "connections", "metrics", "packets", "series"):
        assert_frame_equal(getattr(native, data_set), getattr(wireshark, data_set))
