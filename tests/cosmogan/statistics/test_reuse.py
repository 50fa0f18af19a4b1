import torch

from cosmogan.slices import SliceMetadata
from cosmogan.statistics import minkowski
from cosmogan.statistics.reuse import once_per_tensor


class Counted:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, fields: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
        self.calls += 1
        return factor * fields.sum()


def wrapped() -> tuple[Counted, object]:
    counted = Counted()

    def function(fields: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
        return counted(fields, factor)

    return counted, once_per_tensor(function)


def test_the_same_tensor_is_worked_on_once() -> None:
    counted, total = wrapped()
    fields = torch.arange(4.0)
    assert [float(total(fields)) for _ in range(3)] == [6.0] * 3
    assert counted.calls == 1
    assert float(total(fields, 2.0)) == 12.0
    assert counted.calls == 2


def test_another_tensor_and_a_change_in_place_are_seen() -> None:
    counted, total = wrapped()
    fields = torch.arange(4.0)
    assert float(total(fields)) == 6.0
    fields += 1
    assert float(total(fields)) == 10.0
    assert float(total(fields.clone())) == 10.0
    assert counted.calls == 3
    # A slice of it is another tensor, in the same memory.
    assert float(total(fields[:2])) == 3.0


def test_nothing_is_held_of_a_tensor_that_is_gone() -> None:
    counted, total = wrapped()
    sums = []
    # Memory and identity of a dropped tensor are soon those of another.
    for value in range(20):
        sums.append(float(total(torch.full((3,), float(value)))))
    assert sums == [3.0 * value for value in range(20)]
    assert counted.calls == 20


def test_minkowski_functionals_are_computed_once(monkeypatch) -> None:
    calls = []
    whole = minkowski.minkowski_functionals
    monkeypatch.setattr(minkowski, "minkowski_functionals", lambda *args: calls.append(1) or whole(*args))
    metadata = SliceMetadata(box_size=100.0, n_pixels=16, thickness=1.0)
    fields = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    for statistic in (minkowski.BoundaryLength(), minkowski.EulerCharacteristic()):
        expected = whole(fields, torch.from_numpy(statistic.centres(metadata)))[:, statistic.order]
        assert torch.equal(statistic.per_slice(fields, metadata), expected * statistic.unit(metadata))
    assert len(calls) == 1
    # Other thresholds are another computation.
    minkowski.BoundaryLength(low=0.2).per_slice(fields, metadata)
    assert len(calls) == 2
