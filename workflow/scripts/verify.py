"""End with an error where the native reader and Wireshark differ without an explanation."""

from brokerlens import job  # isort: skip  # first: it tells the libraries below how many threads they may use

from pathlib import Path
from typing import TYPE_CHECKING

from brokerlens.errors import UserError
from brokerlens.wireshark.differences import read, unexplained

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def verify(*, differences: str) -> None:
    """Raises UserError where the table has differences that no rule explains."""
    left = unexplained(read(Path(differences).read_text(encoding="utf-8")))
    if left:
        fields = ", ".join(sorted({row["field"] for row in left}))
        raise UserError(
            f"{differences}: found {sum(int(row['packets']) for row in left):,} differences between the native reader and Wireshark that nothing "
            f"explains, in {fields}; expected none. For example {left[0]['examples']}. Look at these packets in Wireshark. Where it is right, "
            "`decoder: wireshark` reads the site's captures, and a report of the packet helps to mend the native reader."
        )


if __name__ == "__main__":
    with job.logged(snakemake):
        verify(differences=snakemake.input.differences)
