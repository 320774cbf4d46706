"""Draw the committed results: bench/results/<name>.svg from bench/results/<name>.json."""

from __future__ import annotations

import json

import matplotlib as mpl

from bench.rows import RESULTS

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "wgmesh"
from matplotlib import pyplot  # noqa: E402


def draw(name: str) -> None:
    """Draw one bar per figure and one panel per unit. A goal is a line across its bar."""
    rows = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    units = list(dict.fromkeys(row["unit"] for row in rows))
    heights = [sum(row["unit"] == unit for row in rows) for unit in units]
    figure, panels = pyplot.subplots(
        len(units), figsize=(9, 0.9 + 0.32 * len(rows)), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for panel, unit in zip(panels[:, 0], units, strict=True):
        mine = [row for row in rows if row["unit"] == unit][::-1]
        colours = [{True: "#2a9d5c", False: "#c8442f", None: "#7a8899"}[row["holds"]] for row in mine]
        panel.barh([row["metric"] for row in mine], [row["value"] for row in mine], color=colours)
        for place, row in enumerate(mine):
            if row["goal"]:
                panel.plot([float(row["goal"].split()[1])] * 2, [place - 0.4, place + 0.4], color="black")
        least, most = (pick(row["value"] for row in mine) for pick in (min, max))
        if most > 50 * least:
            # A logarithmic axis cannot show zero.
            panel.set_xscale("log" if least else "symlog")
        panel.set_xlabel(unit)
    figure.tight_layout()
    figure.savefig(RESULTS / f"{name}.svg", metadata={"Date": None})
    pyplot.close(figure)
