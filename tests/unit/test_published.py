"""What becomes of a results folder when a run shows other names than the one before."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from brokerlens import published
from brokerlens.errors import UserError

PLACES = {"packets", "metrics.csv", "verify", "excerpts", "intermediate"}
MADE = {"results/packets/experiment=e/site=s/part-0000.parquet", "results/metrics.csv"}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a run with names left, and a file of somebody else's."""
    monkeypatch.chdir(tmp_path)
    for name in (
        *MADE, "results/verify/differences.csv", "results/excerpts/a.pcapng", "results/logs/split_capture/e/s/plant.log",
        "results/benchmarks/split_capture/e/s/plant.tsv", "results/intermediate/captures/e/s/plant/facts.json", "results/README.md", "results/mine.txt",
    ):  # fmt: skip
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("plant")
    return Path("results")


def files(results: Path) -> set[str]:
    return {str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()}


def test_nothing_that_shows_names_survives_when_they_are_hidden(results: Path) -> None:
    said = published.begin(results, "digest", PLACES, MADE, ())
    assert files(results) == {
        "README.md", "mine.txt", "intermediate/+pseudonyms", "intermediate/captures/e/s/plant/facts.json",
        "intermediate/logs/split_capture/e/s/plant.log", "intermediate/benchmarks/split_capture/e/s/plant.tsv",
    }  # fmt: skip
    assert stat.S_IMODE((results / "intermediate").stat().st_mode) == 0o700
    assert "excerpts, metrics.csv, packets, verify" in said[0]
    assert "mine.txt" in said[1] and "README" not in said[1]
    assert published.state(results) == "digest"


def test_the_same_again_changes_nothing(results: Path) -> None:
    published.begin(results, "digest", PLACES, MADE, ())
    (results / "metrics.csv").write_text("new")
    assert published.begin(results, "digest", PLACES, (), MADE) == []
    assert (results / "metrics.csv").exists()


def test_another_secret_makes_everything_anew(results: Path) -> None:
    published.begin(results, "digest", PLACES, MADE, ())
    (results / "metrics.csv").write_text("of the first secret")
    assert "anonymize has another secret: removed what" in published.begin(results, "another", PLACES, MADE, ())[0]
    assert not (results / "metrics.csv").exists()
    assert published.state(results) == "another"


def test_names_shown_again(results: Path) -> None:
    published.begin(results, "digest", PLACES, MADE, ())
    (results / "metrics.csv").write_text("hidden")
    published.begin(results, "", PLACES, MADE, ())
    assert not (results / "metrics.csv").exists()
    assert (results / "logs/split_capture/e/s/plant.log").exists()
    assert published.state(results) == ""


def test_a_run_that_publishes_nothing_leaves_everything(results: Path) -> None:
    published.begin(results, "digest", PLACES, MADE, ())
    (results / "metrics.csv").write_text("hidden")
    assert published.begin(results, "", PLACES, {"results/intermediate/captures/e/s/plant"}, ()) == []
    assert (results / "metrics.csv").exists()
    assert published.state(results) == "digest"


def test_a_run_whose_jobs_say_names_beside_the_results_is_one_that_shows_them(results: Path) -> None:
    """A split alone: its benchmark is called like the capture."""
    published.begin(results, "digest", PLACES, MADE, ())
    made = {"results/intermediate/captures/e/s/plant", "results/benchmarks/split_capture/e/s/plant.tsv"}
    published.begin(results, "", PLACES, made, ())
    assert published.state(results) == ""


def test_what_would_be_taken_as_made_is_an_error(results: Path) -> None:
    with pytest.raises(UserError, match=r"found results/metrics.csv from before it was switched.*--rerun-triggers"):
        published.begin(results, "digest", PLACES, {"results/intermediate/merged"}, {"results/metrics.csv"})
    assert (results / "metrics.csv").exists()
    assert published.state(results) == ""


def test_a_run_that_makes_nothing_removes_nothing(results: Path) -> None:
    """As that of `doctor` and `costs`, which may run beside another."""
    before = sorted(path for path in results.rglob("*") if path.is_file())
    assert published.begin(results, "digest", PLACES, (), ()) == []
    assert sorted(path for path in results.rglob("*") if path.is_file()) == before
    assert published.state(results) == ""


def test_the_first_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert published.begin(Path("results"), "", PLACES, MADE, ()) == []
    assert published.begin(Path("results"), "digest", PLACES, MADE, ()) == []
    assert published.state(Path("results")) == "digest"
