"""Statistics of tensors of every kind, against f64 references."""

from __future__ import annotations

import math

import pytest
import torch

from tamegrad import _gradients
from tamegrad._core import Sampler, Scan, Updates


def reference(tensor: torch.Tensor) -> tuple:
    """The seven numbers in f64."""
    values = tensor.to_dense() if tensor.layout != torch.strided else tensor
    if values.is_complex():
        values = torch.view_as_real(values.resolve_conj())
    values = values.double().reshape(-1)
    finite = values[torch.isfinite(values)]
    return (
        values.numel(),
        int(values.isnan().sum()),
        int(values.isinf().sum()),
        int((values == 0).sum()),
        float(torch.linalg.vector_norm(finite)) if finite.numel() else 0.0,
        float(finite.abs().max()) if finite.numel() else 0.0,
        float(finite.mean()) if finite.numel() else 0.0,
    )


def sample(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def sparse() -> torch.Tensor:
    indices = torch.tensor([[0, 2, 2], [1, 3, 3]])
    return torch.sparse_coo_tensor(indices, torch.tensor([3.0, -1.0, 5.0]), (5, 4))


KINDS = {
    "f32": lambda: sample(7, 5),
    "f64": lambda: sample(7, 5).double(),
    "f16": lambda: sample(7, 5).half(),
    "bf16": lambda: sample(7, 5).bfloat16(),
    "scalar": lambda: torch.tensor(-2.5),
    "empty": lambda: torch.empty(0, 4),
    "transposed": lambda: sample(7, 5).t(),
    "channels last": lambda: sample(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "row of a matrix": lambda: sample(7, 5)[3],
    "column of a matrix": lambda: sample(7, 5)[:, 2],
    "every second": lambda: sample(40)[::2],
    "expanded": lambda: sample(1, 5).expand(6, 5),
    "overlapping": lambda: sample(9).as_strided((4, 3), (2, 1)),
    "nan and inf": lambda: torch.tensor([math.nan, math.inf, -math.inf, 3.0, 0.0, -4.0]),
    "nothing finite": lambda: torch.tensor([math.nan, math.inf]),
    "complex": lambda: torch.complex(sample(3, 4), sample(3, 4)),
    "conjugate": lambda: torch.complex(sample(3, 4), sample(3, 4)).conj(),
    "sparse with a duplicate": sparse,
    "sparse rows": lambda: sample(4, 3).to_sparse_csr(),
    "huge": lambda: torch.tensor([1e30, -1e30]),
    "tiny": lambda: torch.tensor([1e-30, 1e-35]),
    "float8": lambda: sample(4, 4).to(torch.float8_e4m3fn),
}


def by_scan(tensor: torch.Tensor) -> tuple:
    scan = Scan()
    scan.tensors([None])
    _gradients.put(scan, 0, tensor)
    return scan.get(0)


def by_device(tensor: torch.Tensor) -> tuple:
    dense, missing = _gradients.values_of(tensor)
    return _gradients.with_zeros(_gradients._device.exact(dense), missing)


@pytest.mark.parametrize("numbers", [by_scan, by_device])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tensor_has_the_numbers_of_f64(kind, numbers):
    tensor = KINDS[kind]()
    got, want = numbers(tensor), reference(tensor.float() if "float8" in kind else tensor)
    assert got[:4] == want[:4]
    assert got[4:] == pytest.approx(want[4:], rel=1e-12, abs=1e-300)


def test_dense_tensors_are_read_in_place_and_others_are_given_back():
    scan = Scan()
    tensors = [KINDS[kind]() for kind in ("f32", "bf16", "column of a matrix", "complex")]
    assert scan.tensors([tensors[0], None, *tensors[1:]]) == [3, 4]
    assert [index for index in range(len(scan)) if scan.get(index)] == [0, 2]


def test_a_gradient_is_read_where_it_lies_now():
    parameter = torch.nn.Parameter(torch.ones(3))
    scan = Scan()
    for value in (1.0, 2.0):
        parameter.grad = torch.full((3,), value)
        scan.gradients([parameter])
        assert scan.norm() == pytest.approx(value * math.sqrt(3))


def test_numpy_arrays_are_read_in_place():
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(12, dtype=numpy.float32).reshape(3, 4)
    unaligned = numpy.frombuffer(bytes(50), numpy.float32, 12, offset=1).reshape(3, 4)
    in_place = [
        array,
        array.T,
        array.astype(numpy.float64),
        array.astype(numpy.float16),
        array.view(numpy.matrix),
        array.reshape(3, 2, 2).transpose(1, 0, 2),
    ]
    given_back = [
        array[:, 1],
        array.astype(numpy.int64),
        array.astype(">f4"),
        array.astype(numpy.longdouble),
        unaligned,
    ]
    scan = Scan()
    assert scan.tensors(in_place + given_back) == list(range(6, 11))
    assert {scan.get(index) for index in range(6)} == {scan.get(0)}
    assert scan.get(0) == (12, 0, 0, 1, pytest.approx(math.sqrt(506.0)), 11.0, 5.5)
    assert scan.tensors([numpy.float32([]), numpy.array(-2.5)]) == []
    assert [scan.get(index)[0] for index in range(2)] == [0, 1]


def test_torch_without_the_exchange_interface_is_read_by_its_methods():
    class Old:
        """A tensor of a version that offers methods alone."""

        def __init__(self, tensor):
            self.tensor = tensor

        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return getattr(self.tensor, name)

    tensor = sample(6, 4)
    scan = Scan()
    unread = scan.tensors([Old(tensor), Old(tensor[:, 1]), Old(tensor.int()), Old(sparse())])
    assert unread == [1, 2, 3]
    assert scan.get(0) == pytest.approx(reference(tensor), rel=1e-12)


def test_scaling_reaches_dense_tensors_and_names_the_rest():
    parameters = [torch.nn.Parameter(torch.ones(4)) for _ in range(4)]
    shared = torch.ones(4)
    parameters[0].grad, parameters[1].grad = torch.ones(4), shared
    parameters[2].grad, parameters[3].grad = shared, torch.ones(8)[::2]
    scan = Scan()
    assert sorted(scan.scale_gradients(parameters, 0.5)) == [2, 3]
    assert parameters[0].grad.tolist() == [0.5] * 4
    assert shared.tolist() == [0.5] * 4
    assert scan.scale_gradients(parameters, [1.0, 1.0, 1.0, 1.0]) == []
    with pytest.raises(ValueError, match="got 1 factors for 4 parameters"):
        scan.scale_gradients(parameters, [2.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_an_update_is_measured_exactly_and_by_sample(dtype):
    before = [(sample(n) * 0.05).to(dtype) for n in (7, 900, 50_000)]
    after = [(b.double() + 1e-3 * sample(b.numel()).double().cos()).to(dtype) for b in before]
    updates = Updates()
    assert updates.measure(before, after) == []
    sampler, estimated = Sampler(), Updates()
    sampler.take(before)
    sampler.measure(after, estimated)
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        change = float(torch.linalg.vector_norm(new.double() - old.double()))
        weight = float(torch.linalg.vector_norm(old.double()))
        assert updates.get(index) == pytest.approx((change, weight, old.numel(), 0), rel=1e-9)
        assert estimated.get(index) == pytest.approx((change, weight, old.numel(), 0), rel=0.1)


def test_broken_weights_are_counted():
    updates = Updates()
    updates.measure([torch.tensor([1.0, 1.0, 2.0])], [torch.tensor([math.nan, math.inf, 5.0])])
    assert updates.get(0) == (3.0, pytest.approx(math.sqrt(6.0)), 3, 2)
    unread = updates.measure(
        [torch.ones(3), None], [torch.ones(3, dtype=torch.float64), torch.ones(1)]
    )
    assert unread == [0]


def test_an_entry_that_is_not_there_is_an_error():
    with pytest.raises(IndexError, match="got entry 3 of 0"):
        Scan().get(3)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0.5, 0.5),
        (math.inf, math.inf),
        (torch.tensor(0.5, requires_grad=True), 0.5),
        (torch.tensor([[0.5]], dtype=torch.float64), 0.5),
        (torch.tensor(0.5, dtype=torch.float16), 0.5),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        (torch.tensor([0.5, 0.5]), None),
        (torch.tensor([]), None),
        (torch.tensor(2), None),
        (torch.tensor(0.5, device="meta"), None),
        (2, None),
        ("0.5", None),
    ],
    ids=str,
)
def test_the_value_of_one_number_of_any_kind(value, number):
    assert Scan().number(value) == number


def test_the_value_of_a_number_of_numpy():
    numpy = pytest.importorskip("numpy")
    assert Scan().number(numpy.float32(0.5)) == 0.5
    assert Scan().number(numpy.float64(0.5)) == 0.5


def test_the_numbers_of_one_tensor_are_those_of_an_entry():
    scan = Scan()
    scan.tensors([torch.tensor([3.0, -4.0, 0.0, math.nan])])
    assert scan.numbers_of(torch.tensor([3.0, -4.0, 0.0, math.nan])) == scan.get(0)
    assert scan.numbers_of(torch.ones(3, 3)[:, 1]) is None
    assert len(scan) == 1
