import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cosmogan import Emulator
from cosmogan.cli import main
from cosmogan.emulator import file as emulator_file
from cosmogan.emulator.file import read_emulator_file
from cosmogan.errors import UserError
from cosmogan.slices import write_example


def test_saved_and_loaded_is_the_same(emulator: Emulator, saved: Path):
    loaded = Emulator.load(saved)
    assert loaded.metadata == emulator.metadata
    assert loaded.trained_metadata == emulator.metadata
    assert loaded.warning == ""
    assert loaded.training == {"n_slices_seen": 7}
    np.testing.assert_array_equal(loaded.sample(5, seed=1), emulator.sample(5, seed=1))


def test_other_files_are_refused(tmp_path: Path, saved: Path):
    with pytest.raises(UserError, match="no such emulator file"):
        Emulator.load("box900")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(UserError, match="is not a safetensors file"):
        Emulator.load(tmp_path / "empty")
    (tmp_path / "cut").write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        Emulator.load(tmp_path / "cut")
    torch.save({"a": torch.zeros(1)}, tmp_path / "pickle.ckpt")
    with pytest.raises(UserError, match="cosmogan export"):
        Emulator.load(tmp_path / "pickle.ckpt")
    write_example(tmp_path / "slices.h5", n_realisations=1, n_slices=1)
    with pytest.raises(UserError, match=r"slices.h5: is a slice file \(HDF5\); an emulator file was expected$"):
        Emulator.load(tmp_path / "slices.h5")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="not an emulator"):
        Emulator.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize("device", ["warp", "cuda:77", "meta:x"])
def test_a_device_that_is_not_there_is_refused(saved: Path, device: str):
    with pytest.raises(UserError, match=f"device: '{device}' cannot be used here"):
        Emulator.load(saved, device=device)


def test_a_file_cannot_name_what_is_imported(tmp_path: Path):
    record = {
        "format": "cosmogan-emulator",
        "format_version": 1,
        "generator": {"name": "os.system", "settings": {"command": "true"}},
    }
    save_file({"a": torch.zeros(1)}, tmp_path / "bad.safetensors", metadata={"cosmogan": json.dumps(record)})
    with pytest.raises(UserError, match=r"needs os.system, which is not among .*SpectralPriorGenerator"):
        Emulator.load(tmp_path / "bad.safetensors")


def test_who_may_read_other_files_may_read_emulators(dcgan: Emulator, tmp_path: Path):
    (tmp_path / "other").touch()
    dcgan.save(tmp_path / "e.safetensors")
    assert (tmp_path / "e.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def record_and_tensors(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    with safe_open(path, framework="pt") as handle:
        return json.loads(handle.metadata()["cosmogan"]), {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118


def test_one_changed_weight_is_noticed(saved: Path):
    content = bytearray(saved.read_bytes())
    # The least change there is, to the last weight of the file.
    content[-1] ^= 1
    saved.write_bytes(content)
    with pytest.raises(UserError, match=r"e.safetensors: weights or record are not those that were written"):
        Emulator.load(saved)


def test_a_changed_record_is_noticed(saved: Path, tmp_path: Path):
    record, tensors = record_and_tensors(saved)
    record["metadata"]["box_size"] = 73.5
    save_file(tensors, tmp_path / "changed.safetensors", metadata={"cosmogan": json.dumps(record)})
    with pytest.raises(UserError, match="SHA-256 differs"):
        Emulator.load(tmp_path / "changed.safetensors")


def test_files_without_checksum_still_load(emulator: Emulator, saved: Path, tmp_path: Path):
    record, tensors = record_and_tensors(saved)
    del record["sha256"]
    save_file(tensors, tmp_path / "old.safetensors", metadata={"cosmogan": json.dumps(record)})
    np.testing.assert_array_equal(Emulator.load(tmp_path / "old.safetensors").sample(2), emulator.sample(2))


@pytest.mark.parametrize("header", ["{", "[]", '{"format": 1}'])
def test_a_damaged_record_is_named(tmp_path: Path, header: str):
    save_file({"a": torch.zeros(1)}, tmp_path / "e.safetensors", metadata={"cosmogan": header})
    with pytest.raises(UserError, match="record cannot be read"):
        Emulator.load(tmp_path / "e.safetensors")


def test_no_damage_gives_a_traceback(dcgan: Emulator, tmp_path: Path):
    """Any byte of the header or any cut: loaded with the right checksum, or refused in a sentence."""
    path = tmp_path / "e.safetensors"
    dcgan.save(path)
    whole = path.read_bytes()
    (header,) = struct.unpack("<Q", whole[:8])
    random = np.random.default_rng(0)
    for place in (*range(8), *random.integers(8, 8 + header, 100), *random.integers(8 + header, len(whole), 20)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        try:
            record, _ = read_emulator_file(path)
        except UserError:
            continue
        # What a flipped bit may leave as it was: names that nobody asks for.
        assert record["metadata"] == dcgan.metadata.to_dict()
    for length in random.integers(0, len(whole), 30):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            Emulator.load(path)


def test_the_nearest_name_is_suggested(saved: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match=r"did you mean .*e\.safetensors"):
        Emulator.load(saved.with_name("f.safetensors"))
    monkeypatch.setattr(emulator_file, "_SHIPPED", saved.parent)
    saved.rename(saved.with_name("box500.safetensors"))
    with pytest.raises(
        UserError, match=r"box50: no such emulator file; did you mean box500\? shipped emulators: box500"
    ):
        Emulator.load("box50")
    assert Emulator.load("box500").metadata.n_pixels == 16


def test_the_card_beside_the_weights_comes_first(saved: Path):
    composed = Emulator.load(saved).card
    assert "70 Mpc/h (100 Mpc)" in composed
    assert "7 slices seen" in composed
    saved.with_suffix(".md").write_text("# My emulator\n")
    assert Emulator.load(saved).card == "# My emulator\n"


def test_info_is_short_and_the_recipe_is_apart(dcgan: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    dcgan.training["recipe"] = "model:\n  width: 4\n" * 30
    path = str(tmp_path / "e.safetensors")
    dcgan.save(path)
    assert main(["info", path]) == 0
    summary = capsys.readouterr().out
    assert len(summary.splitlines()) < 16
    assert "70 Mpc/h (100 Mpc)" in summary
    assert main(["info", path, "--recipe"]) == 0
    assert capsys.readouterr().out == dcgan.training["recipe"]
    assert main(["info", path, "--card"]) == 0
    assert capsys.readouterr().out.startswith("# Emulator")


def test_half_precision_changes_bits_and_little_else(spectral: Emulator, tmp_path: Path):
    path = tmp_path / "e.safetensors"
    spectral.save(path)
    half = Emulator.load(path, precision="bfloat16")
    found, expected = half.sample(16, seed=1), spectral.sample(16, seed=1)
    assert not np.array_equal(found, expected)
    # Eight bits of a correction to a field of unit variance.
    np.testing.assert_allclose(np.log(found), np.log(expected), atol=0.05)
    np.testing.assert_array_equal(half.sample(seed=1, indices=[9]), found[[9]])
    assert half.resized(32).provenance["precision"] == "bfloat16"
    for write in (half.save, half.to_onnx):
        with pytest.raises(UserError, match="float32"):
            write(tmp_path / "other")


def test_precisions_that_are_not_there_are_refused(dcgan: Emulator, tmp_path: Path):
    dcgan.save(tmp_path / "e.safetensors")
    with pytest.raises(UserError, match=r"e.safetensors: precision: DCGANGenerator computes in float32 only"):
        Emulator.load(tmp_path / "e.safetensors", precision="bfloat16")
    with pytest.raises(UserError, match="expected float32 or bfloat16, found 'fp8'"):
        Emulator.load(tmp_path / "e.safetensors", precision="fp8")  # type: ignore[arg-type]


def test_what_the_slices_come_from_is_known(saved: Path):
    loaded, written = Emulator.load(saved), saved.read_bytes()
    saved.unlink()
    provenance = loaded.provenance
    assert provenance["emulator"] == "e.safetensors"
    assert provenance["emulator_sha256"] == hashlib.sha256(written).hexdigest()
    assert "not_trustworthy" not in provenance


def test_a_file_of_another_version_is_one_line(saved: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> Emulator:
        raise RuntimeError("Error(s) in loading state_dict:\n\t" + "\n\t".join(f"Missing: layer{n}" for n in range(99)))

    monkeypatch.setattr(Emulator, "from_record", refuse)
    with pytest.raises(UserError, match=r"other versions of cosmogan \(Error.* \.\.\.\); .*train it anew$") as raised:
        Emulator.load(saved)
    assert "\n" not in str(raised.value)
