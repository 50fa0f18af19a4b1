from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cosmogan.slices import write_example
from cosmogan.statistics.power_spectrum import PowerSpectrum
from cosmogan.validation.compare import compare
from cosmogan.validation.comparison import Comparison
from cosmogan.validation.report.paper import draw_paper, is_of_the_paper, paper_rows


def comparison(tmp_path: Path, box_size: float) -> Comparison:
    for seed, name in enumerate(("mocks.h5", "reference.h5")):
        write_example(tmp_path / name, box_size=box_size, n_pixels=64, seed=seed)
    mocks, reference = tmp_path / "mocks.h5", tmp_path / "reference.h5"
    return compare(mocks, reference, statistics=[PowerSpectrum()], sets=False, n_bootstrap=10)


@pytest.mark.parametrize(("box_size", "expected"), [(350.0, True), (70.0, True), (500.0, False), (100.0, False)])
def test_boxes_are_in_mpc_over_h(tmp_path: Path, box_size: float, expected: bool) -> None:
    assert is_of_the_paper(comparison(tmp_path, box_size)) == expected


def test_numbers_are_those_of_the_range(tmp_path: Path) -> None:
    found = comparison(tmp_path, 350.0)
    entry = found.statistics[0]
    # 5% in the range that the paper is best in, if its k is in h/Mpc, and 12% in two bins elsewhere.
    inside = (entry.x >= 0.06) & (entry.x <= 0.4)
    ratio = np.where(inside, -0.05, 0.12)
    rows = paper_rows([replace(found, statistics=(replace(entry, ratio=ratio),))])
    by_name = {row.what: row for row in rows}
    assert by_name["P(k), k of 0.06 to 0.4 h/Mpc"].ours == ("median 5.0%, largest 5.0%",)
    assert by_name["P(k), k of 0.06 to 0.4 h/Mpc"].paper == "1 to 2%"
    # 0.06 to 0.4 per Mpc is 0.086 to 0.571 h/Mpc at h = 0.7.
    in_mpc = by_name["P(k), k of 0.06 to 0.4 1/Mpc"].ours[0]
    judged = entry.judged & (entry.x >= 0.06 / 0.7) & (entry.x <= 0.4 / 0.7)
    assert in_mpc == f"median {np.median(np.abs(ratio[judged])):.1%}, largest 12%"
    assert "rms of correlations" in by_name["correlations of P(k), large scales"].ours[0]
    other = paper_rows([comparison(tmp_path, 70.0)] * 2)
    assert [row.paper for row in other] == ["about 20%"]
    assert len(other[0].ours) == 2


def test_panels_are_drawn_without_all_statistics(tmp_path: Path) -> None:
    found = draw_paper([comparison(tmp_path, 350.0)])
    assert found.png.startswith(b"\x89PNG")
    assert found.pdf.startswith(b"%PDF")
