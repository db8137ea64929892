"""`icewatch engine` as a person meets it."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engines.plans.build import BuildWatch
from engines.plans.prepared import keep_prepared
from engines.plans.store import PlanStore
from tests import tiny_bundle
from tests.commands import icewatch
from tests.plans import CONTENT, KEY, builder, files, needs_root
from tests.privileges import NOBODY

Run = tuple[int, str, str]


class Shell:
    """Runs `icewatch engine` in a folder with a tiny bundle."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: Path
    ) -> None:
        self._tools = monkeypatch, capsys
        monkeypatch.chdir(path)
        tiny_bundle.write(path / "tiny")

    def __call__(self, words: str) -> Run:
        return icewatch(f"engine {words}", *self._tools)

    def refuses(self, words: str, status: int) -> str:
        """Run what must fail with one line; gives the line."""
        code, out, complaint = self(words)
        assert code == status and out == "", (code, out)
        assert complaint.startswith("icewatch: ") and complaint.count("\n") == 1, complaint
        return complaint


@pytest.fixture
def shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Shell:
    return Shell(monkeypatch, capsys, tmp_path)


def configuration(path: Path) -> Path:
    config = path / "icewatch.toml"
    config.write_text(
        f"[acquisition]\ndirectory = '{path / 'tilts'}'\n[state]\ndirectory = '{path / 'state'}'\n"
    )
    return config


def test_builds_lists_and_verifies(shell: Shell, tmp_path: Path) -> None:
    known = builder().capabilities[:2]
    cards = " ".join(f"--compute-capability {one}" for one in known)
    status, said, complaint = shell(
        f"build --bundle tiny --precision fp32 --library tensorrt_rtx {cards} --out plans"
    )
    assert (status, complaint) == (0, "")
    assert re.search(r"^built plans/[0-9a-f]{32}\.plan$", said, re.MULTILINE)
    assert "tiny 1, fp32, tensorrt_rtx" in said and ", ".join(known) in said
    status, said, _ = shell("list plans")
    assert status == 0 and said.count("\n") == 2
    for word in ("tiny 1 fp32", "tensorrt_rtx", ", ".join(known), "sound", "MB"):
        assert word in said
    status, said, _ = shell("verify plans --bundle tiny")
    assert status == 0 and said.endswith(".plan: sound\n")
    status, said, _ = shell("verify plans --bundle default")
    assert status == 1 and "another bundle (tiny 1) than default" in said


def test_a_half_graph_that_a_bundle_lacks_is_asked_for(shell: Shell) -> None:
    builder()
    assert "precision fp32" in shell.refuses("build --bundle tiny --out plans", 2)


@pytest.mark.parametrize(
    "words",
    [
        "build --library cuda",
        "build --precision int8",
        "build --bundle nowhere",
        "build --library tensorrt_rtx --compute-capability 9.9",
        "build --library tensorrt_rtx --compute-capability hopper",
        "list",
        "list plans --config icewatch.toml",
        "list nowhere",
        "verify",
        "verify nowhere",
        "verify nowhere --bundle nowhere",
        "verify --config nowhere.toml",
        "verify a b",
    ],
)
def test_wrong_usage_is_one_line_and_status_2(shell: Shell, words: str) -> None:
    builder()
    shell.refuses(words, 2)
    assert not Path("plans").exists()


def test_a_graph_that_cannot_be_built_is_one_line_and_status_1(
    shell: Shell, tmp_path: Path
) -> None:
    builder()
    graph = tiny_bundle.tiny_graph()
    graph.graph.node[3].op_type = "Unique"
    tiny_bundle.write(tmp_path / "strange", graph.SerializeToString())
    assert "Unique" in shell.refuses("build --bundle strange --precision fp32 --out plans", 1)
    assert list(Path("plans").iterdir()) == []


def test_a_folder_that_others_can_write_is_refused_before_building(shell: Shell) -> None:
    builder()
    Path("plans").mkdir()
    Path("plans").chmod(0o777)
    assert "chmod" in shell.refuses("build --bundle tiny --precision fp32 --out plans", 1)


def test_ctrl_c_ends_a_build_and_leaves_nothing(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder()
    started = BuildWatch.started

    def interrupted(watch: BuildWatch, phase: str, steps: int) -> None:
        if not watch.phase:
            os.kill(os.getpid(), signal.SIGINT)
        started(watch, phase, steps)

    monkeypatch.setattr(BuildWatch, "started", interrupted)
    status, *said = shell("build --bundle tiny --precision fp32 --out plans")
    assert status != 0 and said == ["", ""]
    assert list(Path("plans").iterdir()) == []


@pytest.mark.parametrize("fault", ["flipped", "cut", "no record", "no plan", "mode", "link"])
def test_a_plan_that_is_not_sound_is_named_and_status_is_1(shell: Shell, fault: str) -> None:
    sound = keep_prepared(Path("plans"), KEY, CONTENT, "tiny 1")
    plan = keep_prepared(Path("plans"), KEY.model_copy(update={"card": None}), CONTENT, "tiny 1")
    if fault == "flipped":
        plan.write_bytes(CONTENT[:-1] + b"\0")
    elif fault == "cut":
        plan.write_bytes(CONTENT[:-1])
    elif fault == "no record":
        Path(f"{plan}.json").unlink()
    elif fault == "no plan":
        plan.unlink()
    elif fault == "mode":
        plan.chmod(0o666)
    else:
        plan.rename("elsewhere")
        plan.symlink_to(Path("elsewhere").resolve())
    status, said, complaint = shell("verify plans")
    lines = dict(line.split(": ", 1) for line in said.splitlines())
    assert (status, complaint) == (1, "")
    assert lines.pop(sound.name) == "sound" and list(lines) == [plan.name]
    status, table, _ = shell("list plans")
    assert status == 0 and lines[plan.name] in table


def test_a_folder_without_plans_is_not_verified(shell: Shell) -> None:
    Path("plans").mkdir(mode=0o755)
    assert shell("verify plans") == (1, "no plans in 'plans'\n", "")
    assert shell("list plans") == (0, "no plans in 'plans'\n", "")


def test_looks_into_the_cache_of_a_daemon(shell: Shell, tmp_path: Path) -> None:
    config = configuration(tmp_path)
    assert shell(f"verify --config {config}")[0] == 1
    directory = tmp_path / "state" / "engines"
    PlanStore(directory).put(KEY, CONTENT, "tiny 1")
    for words in (f"--config {config}", str(directory)):
        status, said, _ = shell(f"verify {words}")
        assert (status, said) == (0, f"{files(directory, KEY)[0].name}: sound\n")
    assert "NVIDIA RTX A5000" in shell(f"list --config {config}")[1]
    foreign = tmp_path / "foreign"
    PlanStore(foreign).put(KEY, CONTENT, "tiny 1")
    shutil.copytree(foreign, directory, dirs_exist_ok=True)
    directory.chmod(0o700)
    status, said, _ = shell(f"verify --config {config}")
    assert status == 1 and "not sealed here" in said


@needs_root
def test_root_sees_the_cache_as_the_daemon_does(shell: Shell, tmp_path: Path) -> None:
    config = configuration(tmp_path)
    directory = tmp_path / "state" / "engines"
    store = PlanStore(directory)
    store.put(KEY, CONTENT, "tiny 1")
    plan, record = files(directory, KEY)
    for one in (plan, record, directory, store.secret_file):
        os.chown(one, NOBODY, NOBODY)
    assert shell(f"verify --config {config}")[0] == 0
    os.chown(plan, 0, 0)
    status, said, _ = shell(f"verify --config {config}")
    assert status == 1 and "belongs to user 0" in said


def test_nothing_of_a_library_is_loaded_to_list_and_verify(tmp_path: Path) -> None:
    keep_prepared(tmp_path / "plans", KEY, CONTENT, "tiny 1")
    code = (
        "import sys, monitor.engine_plans as plans\n"
        "from pathlib import Path\n"
        "assert plans.verify_plans(Path(sys.argv[1]), None, None) == 0\n"
        "assert plans.list_plans(Path(sys.argv[1]), None) == 0\n"
        "print(*{'tensorrt', 'tensorrt_rtx', 'torch', 'matplotlib', 'onnx'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "plans")],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == ""
