"""The GPU's path without a GPU: `implicit`'s own fit on arrays in host memory that count their bytes and fail on demand.

The kernels are `implicit`'s for the CPU, so what is shown here is everything around them. The last test is for hardware.
"""

import multiprocessing
import sys
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from test_trainers import clicks

from recstore.definition import Hyperparameters
from recstore.errors import DeviceUnavailable
from recstore.model.trainers import als, cuda, trainer

ALS = als.ALS()
GIVEN = Hyperparameters(regularization=20.0, iterations=4, seed=7)
GB = 10**9


class Device:
    """GPU memory that isn't: what is allocated, and what goes wrong in which half-sweep."""

    def __init__(self):
        self.free, self.allocated, self.half_sweeps = 16 * GB, 0, 0
        self.fails_at, self.error, self.broken, self.has_kernels = None, RuntimeError, False, True
        self.downloads, self.fails_at_download = 0, None
        self.arrays = weakref.WeakSet()

    def memory(self):
        if self.broken:
            raise RuntimeError("an illegal memory access was encountered")
        return self.free, 16 * GB

    def classes(device):
        class Matrix:
            def __init__(self, array):
                assert array.flags.c_contiguous, "implicit copies the bytes as they lie"
                self.array = array.copy()
                device.allocated += array.nbytes
                device.arrays.add(self)

            @classmethod
            def zeros(cls, rows, columns):
                return cls(np.zeros((rows, columns), np.float32))

            def to_numpy(self):
                device.downloads += 1
                if device.downloads == device.fails_at_download:
                    raise RuntimeError("out of luck")
                return self.array.copy()

        class CSRMatrix:
            def __init__(self, csr):
                self.csr = csr
                device.allocated += csr.indptr.nbytes + csr.indices.nbytes + csr.data.nbytes

        class LeastSquaresSolver:
            def calculate_yty(self, _y, _yty, regularization):
                self.regularization = regularization

            def least_squares(self, cui, x, _yty, y, cg_steps):
                if device.half_sweeps == device.fails_at:
                    raise device.error("out of luck")
                device.half_sweeps += 1
                if device.has_kernels:
                    als.implicit.cpu.als._als._least_squares_cg(
                        cui.csr.indptr, cui.csr.indices, cui.csr.data, x.array, y.array, self.regularization,
                        num_threads=1, cg_steps=cg_steps,
                    )  # fmt: skip

            def calculate_loss(self, _cui, _x, y, _regularization):
                device.allocated += y.array.shape[1] ** 2 * 4 * (device.half_sweeps == 2)
                return float(device.half_sweeps)

        return {"Matrix": Matrix, "CSRMatrix": CSRMatrix, "LeastSquaresSolver": LeastSquaresSolver}


@pytest.fixture
def device(monkeypatch):
    device = Device()
    for name, made in device.classes().items():
        monkeypatch.setattr(als.implicit.gpu, name, made, raising=False)
    monkeypatch.setattr(als.implicit.gpu, "HAS_RMM", True)
    monkeypatch.setattr(als.implicit.gpu, "HAS_CUDA", True)
    monkeypatch.setattr(als.implicit.gpu.als, "check_random_state", lambda _: None)
    monkeypatch.setattr(cuda, "memory", device.memory)
    return device


@pytest.mark.parametrize("factors", [1, 20, 32])
@pytest.mark.usefixtures("device")
def test_factors_go_to_the_gpu_padded_and_come_back_without(factors):
    start = np.asfortranarray(np.random.default_rng(1).random((40, factors), dtype=np.float32))
    cpu, gpu = (
        ALS.train(clicks(60, 40), GIVEN, factors=factors, device=device, item_factors=start)
        for device in ("cpu", "auto")
    )
    assert (gpu.device, gpu.warnings) == ("gpu", ())
    np.testing.assert_allclose(gpu.user_factors, cpu.user_factors, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(gpu.item_factors, cpu.item_factors, rtol=1e-3, atol=1e-5)
    assert gpu.item_factors.flags.c_contiguous


def test_the_estimate_is_what_implicit_allocates_and_the_margin(device):
    matrix = clicks(60, 40)
    ALS.train(matrix, GIVEN, factors=20, with_loss=True)
    assert device.allocated == 4 * 32 * (60 + 40) + 4 * (61 + 41) + 16 * matrix.nnz + 3 * 4 * 32**2
    assert cuda.bytes_needed(60, 40, matrix.nnz, 20) == int(1.1 * device.allocated) + (256 << 20)


def test_the_estimate_worked_by_hand():
    """A million users, 100,000 items, 50 million pairs, 100 factors (padded to 128): 563.2 + 4.4 + 800 + 0.2 MB."""
    arrays = 1_100_000 * 128 * 4 + 1_100_002 * 4 + 800_000_000 + 3 * 128 * 128 * 4
    assert cuda.bytes_needed(10**6, 10**5, 50 * 10**6, 100) == int(1.1 * arrays) + (256 << 20)
    assert 1.77 * GB < cuda.bytes_needed(10**6, 10**5, 50 * 10**6, 100) < 1.78 * GB


@pytest.mark.usefixtures("device")
def test_the_factors_of_the_moment_come_down_without_the_padding():
    seen = []

    def on_factors(number, fold_in):
        seen.append(fold_in.item_factors)
        return number == 2

    trained = ALS.train(clicks(60, 40), GIVEN, factors=20, on_factors=on_factors)
    assert trained.device == "gpu"
    assert [factors.shape for factors in seen] == [(40, 20)] * 3
    assert not np.array_equal(seen[1], seen[2])
    np.testing.assert_array_equal(trained.item_factors, seen[2])


def test_the_factors_come_down_only_if_there_is_a_callback(device):
    ALS.train(clicks(60, 40), GIVEN, factors=20, on_iteration=lambda *_: None)
    assert device.downloads == 2
    ALS.train(clicks(60, 40), GIVEN, factors=20, on_factors=lambda *_: None)
    assert device.downloads == 2 + GIVEN.iterations + 2


def test_an_error_of_cuda_on_the_way_down_is_no_error_of_the_callback(device):
    device.fails_at_download = 2
    seen = []
    trained = ALS.train(clicks(60, 40), GIVEN, factors=20, on_factors=lambda number, _: seen.append(number))
    assert (trained.device, seen) == ("cpu", [0, 0, 1, 2, 3])
    assert "after 2 of 4 iterations" in trained.warnings[0]


def test_the_als_part_of_a_hybrid_trains_there(device):
    given = GIVEN.model_copy(update={"trainer": "hybrid"})
    seen = []
    cpu, gpu = (
        trainer("hybrid").train(
            clicks(60, 40), given, factors=12, device=where, on_factors=lambda number, _: seen.append(number)
        )
        for where in ("cpu", "gpu")
    )
    assert (gpu.device, seen, device.half_sweeps) == ("gpu", [0, 1, 2, 3] * 2, 8)
    np.testing.assert_allclose(gpu.item_factors, cpu.item_factors, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("spoil", "words"), [({"free": 2 * GB // 10}, "0.20 of 16.00 GB"), ({"broken": True}, "unknown")]
)
def test_a_training_for_which_the_gpu_has_no_room_is_done_by_the_cpu(device, spoil, words):
    vars(device).update(spoil)
    seen = []
    trained = ALS.train(clicks(60, 40), GIVEN, factors=20, on_iteration=lambda *progress: seen.append(progress[0]))
    assert (trained.device, seen, device.half_sweeps) == ("cpu", [0, 1, 2, 3], 0)
    assert words in trained.warnings[0]
    with pytest.raises(DeviceUnavailable, match=words):
        ALS.train(clicks(60, 40), GIVEN, factors=20, device="gpu")


def test_what_implicit_s_kernels_cannot_count_is_not_tried(device):
    assert cuda.room_problem(10**6, 10**5, 10**6, 1024) is None
    assert "at most 1024 factors, not 1025" in cuda.room_problem(100, 100, 100, 1025)
    device.free = 10**15
    assert cuda.room_problem((2**31 - 1) // 128, 10, 10**6, 100) is None
    for users, items in ((2**24, 10), (10, 2**24)):
        assert "16777216 rows of 128 are more" in cuda.room_problem(users, items, 10**6, 100)


@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
def test_after_an_error_of_cuda_the_cpu_starts_from_the_beginning(device, error):
    device.fails_at, device.error = 5, error
    seen = []
    trained = ALS.train(clicks(60, 40), GIVEN, factors=20, on_iteration=lambda *progress: seen.append(progress[0]))
    assert seen == [0, 1, 0, 1, 2, 3]
    cpu = ALS.train(clicks(60, 40), GIVEN, factors=20, device="cpu")
    np.testing.assert_array_equal(trained.item_factors, cpu.item_factors)
    np.testing.assert_array_equal(trained.user_factors, cpu.user_factors)
    assert trained.device == "cpu"
    assert trained.warnings[0].startswith("The GPU failed: out of luck, after 2 of 4 iterations. The CPU trained from")
    device.fails_at = device.half_sweeps
    with pytest.raises(DeviceUnavailable, match="out of luck, after 0 of 4"):
        ALS.train(clicks(60, 40), GIVEN, factors=20, device="gpu")


class LostItsPlace(RuntimeError):
    pass


@pytest.mark.parametrize("callback", ["on_iteration", "on_factors"])
@pytest.mark.parametrize("error", [LostItsPlace, RuntimeError, MemoryError, TimeoutError, KeyboardInterrupt])
def test_what_the_callback_raises_is_no_error_of_cuda(device, error, callback):
    def stop(number, *_):
        seen.append(number)
        if number == 1:
            raise error("the lock is lost")

    seen = []
    with pytest.raises(error, match="the lock is lost"):
        ALS.train(clicks(60, 40), GIVEN, factors=20, **{callback: stop})
    assert (seen, device.half_sweeps) == ([0, 1], 4)


@pytest.mark.parametrize("error", [TimeoutError, KeyboardInterrupt])
def test_what_a_signal_raises_in_the_middle_is_no_error_of_cuda(device, error):
    device.fails_at, device.error = 3, error
    with pytest.raises(error, match="out of luck"):
        ALS.train(clicks(60, 40), GIVEN, factors=20)


def test_kernels_that_never_ran_are_noticed(device):
    device.has_kernels = False
    trained = ALS.train(clicks(60, 40), GIVEN, factors=20)
    assert (trained.device, "no kernels" in trained.warnings[0]) == ("cpu", True)


@pytest.mark.parametrize("broken", [False, True])
def test_arrays_are_freed_after_a_failure_unless_freeing_would_end_the_process(device, broken):
    device.fails_at = 3

    def report(number, *_):
        device.broken = broken and number == 0

    ALS.train(clicks(60, 40), GIVEN, factors=20, on_iteration=report)
    assert len(device.arrays) == (4 if broken else 0)


@pytest.mark.usefixtures("device")
def test_a_process_forked_after_cuda_was_loaded_leaves_it_alone():
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert "forked" in pool.apply(als.gpu_problem)
    assert als.gpu_problem() is None


@pytest.mark.parametrize(("installed", "words", "warned"), [(False, "recstore[gpu]", 0), (True, "driver", 1)])
def test_why_the_gpu_is_not_usable(monkeypatch, installed, words, warned):
    monkeypatch.setattr(als.implicit.gpu, "HAS_RMM", installed)
    monkeypatch.setattr(als.implicit.gpu, "HAS_CUDA", False)
    monkeypatch.setattr(als, "_import_warnings", [SimpleNamespace(message="driver version is insufficient")])
    assert words in als.gpu_problem()
    warnings = ALS.train(clicks(60, 40), GIVEN, factors=20).warnings
    assert [words in warning for warning in warnings] == [True] * warned
    with pytest.raises(DeviceUnavailable, match="driver" if installed else "rmm"):
        ALS.train(clicks(60, 40), GIVEN, factors=20, device="gpu")


def test_the_free_memory_comes_from_rmm(monkeypatch):
    rmm = SimpleNamespace(mr=SimpleNamespace(available_device_memory=lambda: (3, 4)))
    for name, module in (("rmm", rmm), ("rmm.mr", rmm.mr)):
        monkeypatch.setitem(sys.modules, name, module)
    assert cuda.memory() == (3, 4)


@pytest.mark.skipif(als.gpu_problem() is not None, reason=f"no GPU: {als.gpu_problem()}")
def test_the_gpu_gives_what_the_cpu_gives():
    cpu, gpu = (ALS.train(clicks(60, 40), GIVEN, factors=20, device=device) for device in ("cpu", "gpu"))
    np.testing.assert_allclose(gpu.user_factors @ gpu.item_factors.T, cpu.user_factors @ cpu.item_factors.T, atol=2e-2)
