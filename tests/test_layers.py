"""Import directions and other rules of the code that a reader can rely on."""

import ast
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path.relative_to(REPOSITORY)
    for package in ("monitor", "engines")
    for path in (REPOSITORY / package).rglob("*.py")
)
LEARNING = ("engines/networks", "engines/learning", "engines/simulation")
"""Folders that need the extra `train`; the daemon does without them."""
HEAVY = {
    "torch": LEARNING,
    "torchvision": LEARNING,
    "timm": LEARNING,
    "segmentation_models_pytorch": LEARNING,
    "safetensors": LEARNING,
    "onnx": LEARNING,
    "onnxscript": LEARNING,
    "matplotlib": LEARNING,
    "tensorrt": (),
    "tensorrt_rtx": (),
    "openvino": (),
    "cuda": (),
    "pynvml": (),
}
"""Where a module may be imported at the top of a file; elsewhere only inside functions."""
DEPENDENCIES = {
    "cv2",
    "imagecodecs",
    "numpy",
    "onnxruntime",
    "prometheus_client",
    "pydantic",
    "pydantic_core",
    "rich",
    "typer",
    "watchdog",
    "yaml",
    "zmq",
    *HEAVY,
}
SERIALISERS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
EXECUTING_CALLS = {"eval", "exec", "yaml.load", "os.system"}
MAX_LINES = 400


def read(path: Path) -> str:
    return (REPOSITORY / path).read_text("utf-8")


def imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Full dotted names of what is imported."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write imports in full"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk over what runs when the module is imported: not into functions or `TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from at_import(node)


def imports(path: Path) -> set[str]:
    return set(imported(ast.walk(ast.parse(read(path)))))


def imports_at_import(path: Path) -> set[str]:
    return set(imported(at_import(ast.parse(read(path)))))


def top(name: str) -> str:
    return name.partition(".")[0]


def offenders(faults: Callable[[Path], Collection[object]], folder: str = "") -> dict[str, object]:
    """Which files of the packages break a rule, and how."""
    assert SOURCES
    found = {path.as_posix(): faults(path) for path in SOURCES if f"{path}".startswith(folder)}
    return {path: fault for path, fault in found.items() if fault}


def test_engines_never_import_monitor() -> None:
    assert not offenders(lambda p: [n for n in imports(p) if top(n) == "monitor"], "engines")


def test_monitor_imports_the_learning_code_in_functions_alone() -> None:
    learning = tuple(folder.replace("/", ".") for folder in LEARNING)
    assert not offenders(
        lambda p: [n for n in imports_at_import(p) if n.startswith(learning)], "monitor"
    )


def test_heavy_modules_are_imported_where_they_belong() -> None:
    def misplaced(path: Path) -> list[str]:
        everywhere = ("monitor", "engines")
        return [
            name
            for name in imports_at_import(path)
            if not path.as_posix().startswith(HEAVY.get(top(name), everywhere))
        ]

    assert not offenders(misplaced)


def test_only_declared_dependencies_are_imported() -> None:
    declared = DEPENDENCIES | sys.stdlib_module_names | {"monitor", "engines"}
    assert not offenders(lambda p: {top(name) for name in imports(p)} - declared)


def test_the_daemon_imports_no_heavy_module() -> None:
    late = {*HEAVY, "imagecodecs"}
    code = f"import sys, monitor.cli, monitor.app\nprint(*sorted({late!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_nothing_executes_data() -> None:
    # Weights are safetensors, messages JSON: a file or a message can never run code.
    def executes(path: Path) -> list[str]:
        calls = [node for node in ast.walk(ast.parse(read(path))) if isinstance(node, ast.Call)]
        found = [name for name in imports(path) if top(name) in SERIALISERS]
        found += [call for node in calls if (call := ast.unparse(node.func)) in EXECUTING_CALLS]
        return found + [
            "torch.load"
            for node in calls
            if ast.unparse(node.func) == "torch.load"
            and "weights_only=True" not in [ast.unparse(word) for word in node.keywords]
        ]

    assert not offenders(executes)


def test_no_module_is_named_after_a_library() -> None:
    libraries = DEPENDENCIES | sys.stdlib_module_names
    assert not offenders(lambda p: set(p.with_suffix("").parts[1:]) & libraries)


def test_no_file_is_too_long_to_read() -> None:
    assert not offenders(lambda p: "x" * (read(p).count("\n") - MAX_LINES))


def test_only_the_pipeline_catches_everything() -> None:
    def swallows(handler: ast.ExceptHandler) -> bool:
        names = {"Exception", "BaseException"}
        kinds = [
            node.id
            for node in ast.walk(handler.type or ast.Name("Exception"))
            if isinstance(node, ast.Name)
        ]
        raises_again = isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None
        return bool(names & set(kinds)) and not raises_again

    def broad(path: Path) -> list[int]:
        tree = ast.walk(ast.parse(read(path)))
        lines = [n.lineno for n in tree if isinstance(n, ast.ExceptHandler) and swallows(n)]
        return lines[1:] if path.as_posix() == "monitor/pipeline.py" else lines

    assert not offenders(broad)


def test_the_rules_find_what_they_look_for() -> None:
    tree = ast.parse(
        "import torch.nn\n"
        "if TYPE_CHECKING:\n    import openvino\n"
        "class A:\n    from monitor import model\n"
        "def build():\n    import tensorrt\n"
    )
    assert set(imported(at_import(tree))) == {"torch.nn", "monitor", "monitor.model"}
    assert "tensorrt" in set(imported(ast.walk(tree)))
    assert offenders(lambda p: [n for n in imports(p) if top(n) == "engines"], "monitor")
