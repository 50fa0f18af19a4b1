"""Put the figures of a demonstration's report on one sheet for the README.

python docs/figures/compose.py runs/demo/report docs/figures/demo.png
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.image import imread

BOXES = ("1_100Mpc", "2_500Mpc")
ROWS = (("slices", 0.52), ("power_spectrum", 1.08))


def main() -> None:
    """Compose the sheet."""
    report, out = Path(sys.argv[1]), sys.argv[2]
    figure = Figure(figsize=(12, 9.6), layout="constrained")
    axes = figure.subplots(len(ROWS), len(BOXES), height_ratios=[height for _, height in ROWS])
    for row, (name, _) in zip(axes, ROWS, strict=True):
        for panel, box in zip(row, BOXES, strict=True):
            panel.imshow(imread(report / f"{name}_{box}.png"))
            panel.axis("off")
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
