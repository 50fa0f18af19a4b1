import base64
import json
import math
import re
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from cosmogan.errors import UserError
from cosmogan.slices import write_example
from cosmogan.statistics.power_spectrum import PowerSpectrum
from cosmogan.validation.command import validate
from cosmogan.validation.compare import compare
from cosmogan.validation.comparison import Comparison
from cosmogan.validation.report import report as writing
from cosmogan.validation.report.figures import Drawing, draw_means
from cosmogan.validation.report.record import to_record
from cosmogan.validation.report.report import write_report
from cosmogan.validation.report.table import format_table
from cosmogan.validation.thresholds import load_thresholds
from cosmogan.validation.verdict import judge_all

ASKED = load_thresholds()
# Drawing takes a quarter of a second per statistic.
POWER = [PowerSpectrum()]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures empty: drawing is nearly all the time of a report, and has no say in anything else."""
    for name in (name for name in vars(writing) if name.startswith("draw_")):
        monkeypatch.setattr(writing, name, lambda *_: Drawing(b"", b""))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return mocks and reference of both boxes of the paper, as the command takes them."""
    folder = tmp_path_factory.mktemp("slices")
    paths = []
    for box_size in (70.0, 350.0):
        for seed, name in enumerate(("mocks", "reference")):
            paths.append(str(folder / f"{name}_{box_size:g}.h5"))
            write_example(paths[-1], box_size=box_size, seed=seed)
    return paths


@pytest.fixture(scope="module")
def comparisons(pairs: list[str]) -> list[Comparison]:
    return [compare(mocks, reference, n_bootstrap=20) for mocks, reference in zip(pairs[::2], pairs[1::2], strict=True)]


@pytest.fixture(scope="module")
def printed_report(pairs: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Return what the command prints about both boxes, and the folder that it writes; drawn once for all tests."""
    out, printed = tmp_path_factory.mktemp("out") / "report", StringIO()
    with redirect_stdout(printed):
        assert validate(pairs, out=str(out), bootstrap=20) == 0
    return printed.getvalue(), out


@pytest.fixture(scope="module")
def report(printed_report: tuple[str, Path]) -> Path:
    return printed_report[1]


@pytest.fixture(scope="module")
def record(report: Path) -> dict[str, Any]:
    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    loaded: dict[str, Any] = json.loads((report / "report.json").read_text(encoding="utf-8"), parse_constant=refuse)
    return loaded


def test_json_holds_the_numbers(record: dict[str, Any], comparisons: list[Comparison]) -> None:
    for written, comparison in zip(record["comparisons"], comparisons, strict=True):
        for entry in comparison.statistics:
            held = written["statistics"][entry.statistic.name]
            for name in ("edges", "x", "mocks", "reference", "ratio", "floor", "reference_error", "mocks_scatter"):
                found = np.array([math.nan if v is None else v for v in held[name]])
                expected = getattr(entry, name)
                np.testing.assert_array_equal(found, np.where(np.isfinite(expected), expected, math.nan))
            assert held["summary"]["median"] == entry.summary.median
            assert held["floor_summary"]["median"] == entry.floor_summary.median


def test_json_holds_the_correlations(record: dict[str, Any], comparisons: list[Comparison]) -> None:
    for written, comparison in zip(record["comparisons"], comparisons, strict=True):
        entry, held = comparison.statistics[0], written["statistics"]["power_spectrum"]
        assert entry.correlation is not None
        for name in ("mocks", "reference"):
            # Written with five decimals.
            np.testing.assert_allclose(held["correlation"][name], getattr(entry.correlation, name), atol=1e-5)
        assert held["correlation"]["rms_difference"] == entry.correlation.rms_difference
        assert entry.coherence is not None
        for name in ("mocks", "reference", "mocks_error", "reference_error"):
            np.testing.assert_array_equal(held["coherence"][name], getattr(entry.coherence, name))
        for name, verdict in judge_all(comparison, ASKED).items():
            assert written["verdicts"][name]["value"] == verdict.value
            assert written["verdicts"][name]["outcome"] == verdict.outcome
        assert {"power_spectrum_variance", "power_spectrum_correlation", "coherence"} <= written["verdicts"].keys()
        assert written["statistics"]["histogram"]["correlation"] is None


def test_table_and_page_show_the_correlations(comparisons: list[Comparison], report: Path) -> None:
    correlation = comparisons[0].statistics[0].correlation
    assert correlation is not None
    pair = f"{correlation.rms_difference:.2g} +{correlation.rms_floor:.2g}"
    assert re.search(rf"Correlation matrix of P\(k\) +{pair}", format_table(comparisons, ASKED))
    page = (report / "index.html").read_text(encoding="utf-8")
    assert page.count("Closeness over all bins") == 2
    assert f"{correlation.rms_difference:.2g} (simulation with itself {correlation.rms_floor:.2g}), rms" in page
    coherence = comparisons[0].statistics[0].coherence
    assert coherence is not None
    score = coherence.score()
    assert re.search(
        rf"Coherence of different slices +{score.value:.2g} +{score.floor:.2g}", format_table(comparisons, ASKED)
    )
    assert f"Median over judged bins {coherence.mocks_median:.2g} for 12 pairs of mocks" in page
    assert "Jensen-Shannon, nats" in page
    assert "rms difference, nats" not in page


def test_json_says_what_was_compared(record: dict[str, Any]) -> None:
    first = record["comparisons"][0]
    assert first["title"] == "100 Mpc (70 Mpc/h), 16² pixels"
    assert first["mocks"]["n_slices"] == 24
    assert first["reference"]["n_realisations"] == 4
    assert re.fullmatch("[0-9a-f]{64}", first["mocks"]["sha256"])
    assert first["reference"]["metadata"]["box_size"] == 70.0
    assert {"cosmogan", "torch", "numpy", "h5py"} <= record["software"].keys()


def test_json_has_k_in_both_units(record: dict[str, Any]) -> None:
    power = record["comparisons"][0]["statistics"]["power_spectrum"]
    assert power["x_units"] == "h/Mpc"
    # h = 0.7: a wave number counted per Mpc is smaller.
    np.testing.assert_allclose(power["x_in_inverse_Mpc"], 0.7 * np.array(power["x"]))
    assert power["x"][0] == pytest.approx(2 * math.pi / 70 * (1 + math.sqrt(2)) / 2)


def test_page_needs_no_other_file(report: Path) -> None:
    page = (report / "index.html").read_text(encoding="utf-8")
    inlined = {base64.b64decode(data) for data in re.findall(r'src="data:image/png;base64,([^"]+)"', page)}
    assert inlined == {path.read_bytes() for path in report.glob("*.png")}
    assert len(inlined) >= 20
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "$" not in re.sub(r"base64,[^\"]+", "", page)
    for text in ("100 Mpc (70 Mpc/h), 16² pixels", "500 Mpc (350 Mpc/h)", "k, h/Mpc", "k, 1/Mpc", "viewport", "dark"):
        assert text in page


@pytest.mark.usefixtures("undrawn")
def test_page_escapes_what_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "a<script>.h5"
    write_example(path)
    page = write_report([compare(path, path, statistics=POWER, n_bootstrap=10)], tmp_path / "out", ASKED).read_text(
        encoding="utf-8"
    )
    assert "a&lt;script&gt;.h5" in page
    assert "<script>" not in page


def test_figures_are_no_blanks(report: Path) -> None:
    for path in report.glob("*.png"):
        pixels = matplotlib.image.imread(path)[..., :3]
        assert min(pixels.shape[:2]) > 400
        assert 0.005 < np.mean(pixels.min(-1) < 0.9) < 0.9


@pytest.mark.parametrize("reach", [10, 45, 300], ids=["short", "one power of ten", "longer"])
def test_labels_of_k_do_not_lie_over_each_other(comparisons: list[Comparison], reach: float) -> None:
    (entry,) = (one for one in comparisons[1].statistics if one.statistic.name == "power_spectrum")
    stretched = replace(entry, x=np.geomspace(0.02, 0.02 * reach, len(entry.x)))
    figure = Figure(figsize=(4.2, 3.5))
    axes = figure.add_subplot()
    draw_means(axes, comparisons[1:], [stretched])
    figure.draw_without_rendering()
    (above,) = axes.child_axes
    for axis in (axes.xaxis, above.xaxis):
        low, high = axis.get_view_interval()
        places = axis.get_majorticklocs(), axis.get_minorticklocs()
        labels = axis.get_majorticklabels(), axis.get_minorticklabels()
        told = [
            text.get_window_extent()
            for where, texts in zip(places, labels, strict=True)
            for place, text in zip(where, texts, strict=False)
            if text.get_text() and low <= place <= high
        ]
        told.sort(key=lambda box: box.x0)
        assert len(told) >= 2
        assert all(left.x1 < right.x0 for left, right in pairwise(told))


def test_table_has_a_row_per_box_and_statistic(comparisons: list[Comparison]) -> None:
    table = format_table(comparisons, ASKED)
    rows = [line for line in table.splitlines() if re.match(r"\d+ Mpc, 16² .*(pass|fail):", line)]
    assert len(rows) == sum(len(judge_all(comparison, ASKED)) for comparison in comparisons)
    # Mocks and the simulation against itself, beside each other.
    first = comparisons[0].statistics[0]
    assert first.floor_summary is not None
    numbers = [float(number) for number in re.findall(r"([0-9.]+)(?=%| /)", rows[0])]
    for start, summary in ((0, first.summary), (5, first.floor_summary)):
        expected = [summary.median, *(third.median for third in summary.thirds), summary.maximum]
        # Two figures are printed.
        assert numbers[start : start + 5] == pytest.approx([100 * value for value in expected], rel=0.05)
    assert "h/Mpc" in table
    assert "1/Mpc" in table


def test_everything_judged_has_a_threshold(comparisons: list[Comparison]) -> None:
    for comparison in comparisons:
        assert set(judge_all(comparison, ASKED)) <= set(ASKED.largest)


@pytest.mark.usefixtures("undrawn")
def test_unknown_h_leaves_mpc_out(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_example(path)
    with h5py.File(path, "r+") as handle:
        del handle["cosmology"].attrs["h"]
    comparison = compare(path, path, statistics=POWER, n_bootstrap=10)
    record = to_record([comparison], ASKED)
    assert record["comparisons"][0]["title"] == "70 Mpc/h, 16² pixels"
    assert "x_in_inverse_Mpc" not in record["comparisons"][0]["statistics"]["power_spectrum"]
    assert "1/Mpc" not in format_table([comparison], ASKED)
    assert write_report([comparison], tmp_path / "out", ASKED).exists()


@pytest.mark.usefixtures("undrawn")
def test_one_slice_against_one_slice(tmp_path: Path) -> None:
    for seed, name in enumerate(("a.h5", "b.h5")):
        write_example(tmp_path / name, n_realisations=1, n_slices=1, seed=seed)
    comparison = compare(tmp_path / "a.h5", tmp_path / "b.h5", statistics=POWER, n_bootstrap=10)
    write_report([comparison], tmp_path / "out", ASKED)
    held = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    power = held["comparisons"][0]["statistics"]["power_spectrum"]
    assert power["floor"] is None
    assert set(power["reference_error"]) == {None}
    assert held["comparisons"][0]["verdicts"]["power_spectrum"]["outcome"] != "pass"
    assert power["floor_summary"] is None


class TestFolder:
    @pytest.mark.usefixtures("undrawn")
    def test_an_existing_report_is_kept(self, comparisons: list[Comparison], tmp_path: Path) -> None:
        out = tmp_path / "report"
        short = [replace(c, statistics=c.statistics[1:2]) for c in comparisons]
        write_report(short[:1], out, ASKED)
        before = (out / "report.json").read_bytes()
        with pytest.raises(UserError, match="--overwrite"):
            write_report(short, out, ASKED)
        assert (out / "report.json").read_bytes() == before
        write_report(short, out, ASKED, overwrite=True)
        assert (out / "report.json").read_bytes() != before
        assert list(tmp_path.iterdir()) == [out]

    @pytest.mark.parametrize("name", ["thesis.tex", "index.html"])
    def test_other_files_are_never_replaced(self, comparisons: list[Comparison], tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("years of work")
        with pytest.raises(UserError, match=name):
            write_report(comparisons, tmp_path, ASKED, overwrite=True)
        assert (tmp_path / name).read_text() == "years of work"

    def test_a_file_in_the_way(self, comparisons: list[Comparison], tmp_path: Path) -> None:
        (tmp_path / "out").write_text("x")
        with pytest.raises(UserError, match="is a file"):
            write_report(comparisons, tmp_path / "out", ASKED)

    @pytest.mark.usefixtures("undrawn")
    def test_a_place_that_cannot_be_written(self, comparisons: list[Comparison], tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(UserError, match="cannot be written"):
            write_report([replace(comparisons[0], statistics=())], tmp_path / "file" / "out", ASKED)

    def test_nothing_to_report(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="at least one"):
            write_report([], tmp_path / "out", ASKED)


class TestCommand:
    @pytest.fixture
    def files(self, tmp_path: Path) -> list[str]:
        for seed, name in enumerate(("mocks.h5", "reference.h5")):
            write_example(tmp_path / name, seed=seed)
        return [str(tmp_path / "mocks.h5"), str(tmp_path / "reference.h5")]

    def test_writes_and_prints(self, printed_report: tuple[str, Path], comparisons: list[Comparison]) -> None:
        printed, out = printed_report
        assert printed == f"{format_table(comparisons, ASKED)}\nreport: {out / 'index.html'}\n"
        assert "Power spectrum P(k)" in printed
        drawn = {path.stem for path in out.glob("*.png")}
        assert len(drawn) >= 20
        assert {path.stem for path in out.glob("*.pdf")} == drawn
        assert all(path.read_bytes().startswith(b"%PDF") for path in out.glob("*.pdf"))

    @pytest.mark.usefixtures("undrawn")
    def test_strict_tells_by_its_exit_code(self, files: list[str], tmp_path: Path) -> None:
        mocks, reference = files
        same = validate([reference, reference], out=str(tmp_path / "a"), bootstrap=10, strict=True)
        # Lognormal noise again, but with twice the contrast.
        with h5py.File(mocks, "r+") as handle:
            handle["slices"][:] = handle["slices"][:] ** 2 / np.e
        far = validate([mocks, reference], out=str(tmp_path / "b"), bootstrap=10, strict=True)
        lenient = validate([mocks, reference], out=str(tmp_path / "c"), bootstrap=10)
        assert (same, far, lenient) == (0, 1, 0)

    @pytest.mark.parametrize("n_files", [0, 1, 3])
    def test_files_come_in_pairs(self, files: list[str], tmp_path: Path, n_files: int) -> None:
        with pytest.raises(UserError, match=f"MOCKS REFERENCE .* got {n_files} file"):
            validate((files * 2)[:n_files], out=str(tmp_path / "out"))

    def test_folder_is_checked_before_the_work(self, files: list[str], tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "notes.txt").write_text("x")
        with pytest.raises(UserError, match=r"notes\.txt"):
            validate(["nowhere.h5", "nothing.h5"], out=str(tmp_path / "out"))

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("power_spektrum: 0.1", "did you mean power_spectrum"),
            ("peaks: -0.1", "peaks: expected a number >= 0, found -0.1"),
            ("peaks: .nan", "expected a number"),
            ("peaks: many", "found 'many'"),
            ("0.1", "expected lines such as"),
            ("[", "this is not YAML"),
        ],
    )
    def test_thresholds(self, files: list[str], tmp_path: Path, text: str, words: str) -> None:
        (tmp_path / "asked.yaml").write_text(text)
        with pytest.raises(UserError, match=rf"asked\.yaml: .*{words}"):
            validate(files, out=str(tmp_path / "out"), thresholds=str(tmp_path / "asked.yaml"))

    def test_thresholds_replace_those_of_the_package(self, tmp_path: Path) -> None:
        (tmp_path / "asked.yaml").write_text("peaks: 0.5\nsignificance: 5")
        asked = load_thresholds(tmp_path / "asked.yaml")
        assert (asked.significance, asked.of("peaks"), asked.of("histogram")) == (5, 0.5, ASKED.of("histogram"))
        with pytest.raises(UserError, match=r"cannot be read .No such file"):
            load_thresholds(tmp_path / "nothing.yaml")

    def test_copies_of_an_earlier_file_are_read(self, tmp_path: Path) -> None:
        # As thresholds.yaml once was: all statistics, and one that is gone.
        earlier = {"significance": 3.0, "power_spectrum": 0.02, "area": 0.03, "voids": 0.05, "copies": 0.005}
        (tmp_path / "asked.yaml").write_text("\n".join(f"{name}: {value}" for name, value in earlier.items()))
        asked = load_thresholds(tmp_path / "asked.yaml")
        assert asked.of("power_spectrum") == 0.02
        assert asked.largest.keys() == ASKED.largest.keys()

    @pytest.mark.usefixtures("undrawn")
    def test_candidates_find_their_box(self, files: list[str], tmp_path: Path) -> None:
        other = tmp_path / "other.h5"
        write_example(other, box_size=350.0)
        words = [f"first={files[0]}", f"second={files[1]}", f"first={other}"]
        out = tmp_path / "out"
        assert validate(mocks=words, reference=[files[1], str(other)], out=str(out), bootstrap=10) == 0
        held = json.loads((out / "report.json").read_text(encoding="utf-8"))["comparisons"]
        assert [(c["candidate"], c["title"][:7]) for c in held] == [
            ("first", "100 Mpc"),
            ("second", "100 Mpc"),
            ("first", "500 Mpc"),
        ]
        # The reference itself is nearest to the reference.
        assert held[1]["mean_excess"] == 0 < held[0]["mean_excess"]
        page = (out / "index.html").read_text(encoding="utf-8")
        assert page.index("<th>second (itself)</th>") < page.index("<th>first (itself)</th>")

    def test_candidates_that_do_not_fit(self, files: list[str], tmp_path: Path) -> None:
        mocks, reference = files
        write_example(tmp_path / "other.h5", box_size=350.0)
        other = str(tmp_path / "other.h5")
        for words, simulations, match in (
            (
                [other],
                [reference],
                r"other\.h5 cannot be compared with any .*350 Mpc/h against 70 Mpc/h",
            ),
            ([mocks, mocks], [reference], "both called mocks"),
            ([mocks], [reference, other], r"other\.h5: none of the files of mocks"),
            ([mocks], None, "go together"),
            (["a="], [reference], "NAME=FILE"),
        ):
            with pytest.raises(UserError, match=match):
                validate(mocks=words, reference=simulations, out=str(tmp_path / "out"))
        with pytest.raises(UserError, match="use either pairs"):
            validate(files, mocks=[mocks], reference=[reference], out=str(tmp_path / "out"))

    @pytest.mark.parametrize("device", ["abacus", "cuda:99"])
    def test_device(self, files: list[str], tmp_path: Path, device: str) -> None:
        with pytest.raises(UserError, match=f"device: '{device}'"):
            validate(files, out=str(tmp_path / "out"), device=device)
