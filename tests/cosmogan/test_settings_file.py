"""One way to read a number in recipes and thresholds."""

from pathlib import Path

import pytest

from cosmogan.errors import UserError
from cosmogan.settings_file import read_settings


def test_numbers_are_those_of_the_command_line(tmp_path: Path):
    path = tmp_path / "a.yaml"
    path.write_text("a: 3e-2\nb: 3.0e-2\nc: -1E6\nd: 10\ne: 1_000\nf: .5\ng: '010'\nh: 2e3x\ni: [1, 2.5]\nj: 08\n")
    expected = {"a": 0.03, "b": 0.03, "c": -1e6, "d": 10, "e": 1000, "f": 0.5, "g": "010", "h": "2e3x", "i": [1, 2.5]}
    assert read_settings(path, expected="settings") == expected | {"j": "08"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 010", "line 1, column 4: 010 is 8 to YAML and 10 to people; write it without the leading zero"),
        ("a: 1\nb: [2, -1:30]", "line 2, column 8: -1:30 is a number in base 60 to YAML"),
        ("a: 1:30.5", "base 60"),
        ("a: [", "this is not YAML"),
        ("3", "expected settings, found int"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(text: str, expected: str, tmp_path: Path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=r"a\.yaml: ") as refused:
        read_settings(tmp_path / "a.yaml", expected="settings")
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(UserError, match=r"cannot be read .No such file"):
        read_settings(tmp_path / "a.yaml", expected="settings")
