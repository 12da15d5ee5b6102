"""The report's figures as files for papers: SVG and PNG, from the specifications that the report drew them by."""

from brokerlens import job  # isort: skip - limits threads before other libraries start them

import json
from pathlib import Path
from typing import TYPE_CHECKING

import vl_convert

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

PIXELS_PER_POINT = 2


def draw_figures(*, specifications: str, output: str) -> None:
    """Draw each figure into the folder ``output``, as ``<id>.svg`` and ``<id>.png``.

    ``specifications`` is a JSON object of Vega-Lite specifications by figure id; ids are file names as they are.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    for figure, specification in json.loads(Path(specifications).read_text(encoding="utf-8")).items():
        svg = vl_convert.vegalite_to_svg(specification)
        (folder / f"{figure}.svg").write_text(svg, encoding="utf-8")
        (folder / f"{figure}.png").write_bytes(vl_convert.svg_to_png(svg, scale=PIXELS_PER_POINT))


if __name__ == "__main__":
    with job.logged(snakemake):
        draw_figures(specifications=snakemake.input.specifications, output=snakemake.output.figures)
