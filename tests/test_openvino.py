"""OpenVINO beside ONNX Runtime: the same percentages, and limits that are said."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from engines.backends import BackendSettings
from engines.backends.onnx_runtime import OnnxRuntimeSettings
from engines.backends.openvino_cpu import OpenVinoBackend, OpenVinoSettings
from engines.backends.protocol import Memory
from engines.bundle import MEMORY_STRIDE, Bundle
from engines.errors import BackendError
from engines.segmenter import Segmenter
from monitor.demo.session import ENLARGED, expose, load_session
from monitor.network import choose_backend
from tests import tiny_bundle

REPOSITORY = Path(__file__).resolve().parents[1]
THREADS = 1
MAX_DIFFERENCE_PERCENT = 0.1
MIN_IOU = 0.99

installed = pytest.mark.skipif(find_spec("openvino") is None, reason="needs openvino")


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return Bundle.load("default")


@pytest.fixture(scope="module")
def backend(shipped: Bundle) -> Iterator[OpenVinoBackend]:
    built = OpenVinoSettings(threads=THREADS).build(shipped)
    yield built
    built.close()


def tilts() -> list[tuple[NDArray[np.int16], float]]:
    """One noisy tilt of each of six lamellae, in counts, with its pixel size."""
    session = load_session()
    random = np.random.default_rng(5)
    size = session.pixel_size_angstrom / ENLARGED
    return [(expose(lamella.tilts[0], random), size) for lamella in session.lamellae[1:]]


@installed
def test_the_same_ice_as_onnx_runtime(shipped: Bundle, backend: OpenVinoBackend) -> None:
    reference = Segmenter(shipped, OnnxRuntimeSettings(threads=THREADS).build(shipped))
    segmenter = Segmenter(shipped, backend)
    icy = 0
    for image, pixel_size_angstrom in tilts():
        expected, found = (one.read(image, pixel_size_angstrom) for one in (reference, segmenter))
        assert expected.percent is not None and found.percent is not None
        assert abs(found.percent - expected.percent) <= MAX_DIFFERENCE_PERCENT
        union = (found.ice | expected.ice).sum()
        assert (found.ice & expected.ice).sum() >= MIN_IOU * union
        assert found.flags == expected.flags
        icy += bool(union)
    assert icy >= 3
    reference.close()


@installed
def test_float32_whatever_the_processor_offers(shipped: Bundle, backend: OpenVinoBackend) -> None:
    # With AMX it would take bfloat16 by itself: 8 bits of mantissa, 4e-3 of a value near 1.
    assert backend.precision == "f32"
    rng = np.random.default_rng(1)
    picture = rng.gamma(20.0, 1.0, (2, 1, 96, 160)).astype(np.float32)
    picture[:, :, 20:60, 30:90] *= 0.7
    valid = np.ones_like(picture)
    channels, sides = shipped.manifest.memory_channels, (96 // MEMORY_STRIDE, 160 // MEMORY_STRIDE)
    memory = Memory(
        rng.normal(size=(2, channels, *sides)).astype(np.float32),
        np.ones((2, 1, *sides), np.float32),
    )
    reference = OnnxRuntimeSettings(threads=THREADS).build(shipped)
    expected, found = (one.infer(picture, valid, memory) for one in (reference, backend))
    np.testing.assert_allclose(found.probability, expected.probability, atol=1e-4)
    np.testing.assert_allclose(found.area, expected.area, rtol=1e-4, atol=0.1)
    for name in ("features", "memory_left"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-3)
    reference.close()


@installed
def test_arrays_that_may_not_be_written_or_lie_apart(backend: OpenVinoBackend) -> None:
    wide = np.random.default_rng(2).gamma(20.0, 1.0, (1, 1, 64, 128)).astype(np.float32)
    view = wide[..., ::2]
    view.flags.writeable = False
    valid = np.broadcast_to(np.float32(1), view.shape)
    expected = backend.infer(view.copy(), valid.copy())
    np.testing.assert_array_equal(backend.infer(view, valid).probability, expected.probability)


def test_settings_are_told_apart_by_their_kind() -> None:
    adapter: TypeAdapter[BackendSettings] = TypeAdapter(BackendSettings)
    found = adapter.validate_python({"kind": "openvino", "threads": 2})
    assert found == OpenVinoSettings(threads=2)
    assert isinstance(adapter.validate_python({"kind": "onnxruntime"}), OnnxRuntimeSettings)
    with pytest.raises(ValidationError):
        adapter.validate_python({"kind": "openvino", "thread": 2})


def test_where_it_is_not_installed_a_sentence_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendError, match=r"pip install 'icewatch\[openvino\]'"):
        choose_backend("openvino")
    with pytest.raises(BackendError, match=r"pip install 'icewatch\[openvino\]'"):
        OpenVinoSettings().build(Bundle.load(tiny_bundle.write(tmp_path)))


@installed
def test_it_is_had_by_name_and_never_by_auto() -> None:
    assert isinstance(choose_backend("openvino"), OpenVinoSettings)
    assert not isinstance(choose_backend("auto"), OpenVinoSettings)


NO_NEW_CODE = "import ctypes; assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0, 'no such thing'"
"""PR_SET_MDWE with PR_MDWE_REFUSE_EXEC_GAIN (Linux 6.3): what MemoryDenyWriteExecute is."""
BUILD = """
import sys
from engines.backends.openvino_cpu import OpenVinoSettings
from engines.bundle import Bundle
from engines.errors import BackendError
try:
    OpenVinoSettings(threads=1).build(Bundle.load(sys.argv[1])).close()
except BackendError as error:
    print(error)
print(*sorted({"torch", "openvino_telemetry"} & set(sys.modules)))
"""


def build_elsewhere(home: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    bundle = tiny_bundle.write(home.parent / "bundle")
    home.mkdir()
    words = [sys.executable, "-c", before + BUILD, str(bundle)]
    surroundings = {"HOME": str(home), "PATH": ""}
    return subprocess.run(
        words, cwd=REPOSITORY, env=surroundings, capture_output=True, text=True, timeout=60
    )


@installed
def test_it_calls_nobody_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = build_elsewhere(tmp_path / "home")
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
    assert not list((tmp_path / "home").iterdir())


@installed
def test_where_memory_is_never_written_and_run_it_is_refused(tmp_path: Path) -> None:
    done = build_elsewhere(tmp_path / "home", NO_NEW_CODE)
    if "no such thing" in done.stderr:
        pytest.skip("needs Linux 6.3")
    assert done.returncode == 0, done.stderr
    sentence, _ = done.stdout.splitlines()
    assert "MemoryDenyWriteExecute=no" in sentence and "onnxruntime" in sentence


SIZES = """
import sys
import numpy as np
from pathlib import Path
from engines.backends.openvino_cpu import OpenVinoSettings
from engines.bundle import Bundle
built = OpenVinoSettings(threads=1).build(Bundle.load("default"))
def show(batch, rows, columns):
    picture = np.random.default_rng(0).gamma(20.0, 1.0, (batch, 1, rows, columns))
    built.infer(picture.astype(np.float32), np.ones(picture.shape, np.float32))
def mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
show(1, 320, 320)
memory = [mib()]
for rows in range(32, 321, 32):
    for columns in range(32, 321, 32):
        show(1, rows, columns)
        memory.append(mib())
before = mib()
for _ in range(3):
    show(4, 608, 608)
print(*(f"{memory[n]:.0f}" for n in (1, 5, 20, 50, 100)), f"{mib() - before:.0f}")
"""


@pytest.mark.slow
@installed
def test_memory_stays_bounded_over_a_hundred_sizes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIZES], cwd=REPOSITORY, capture_output=True, text=True, timeout=115
    )
    assert done.returncode == 0, done.stderr
    _, _, twenty, _, hundred, kept_of_large = (float(word) for word in done.stdout.split())
    print(f"MiB after 1, 5, 20, 50, 100 sizes, and kept of large pictures: {done.stdout}")
    # Unbounded, each further size would keep 3.4 MB, and four large pictures 700 MB.
    assert hundred - twenty < 80 * 1.0
    assert kept_of_large < 350.0
