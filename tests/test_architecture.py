"""The house's rules, checked from the imports: who may know whom."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import anime_tf

ROOT = Path(__file__).parents[1]


def _module(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {_module(path): path for path in sorted((ROOT / "anime_tf").rglob("*.py"))}


def _tree(module):
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def _imports(module):
    """All modules that a module names in an import, wherever it stands."""
    found = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _of_the_package(module):
    return {name for name in _imports(module) if name in MODULES}


def _libraries(module):
    return {name.split(".")[0] for name in _imports(module)}


def _below(folder):
    return [name for name in MODULES if name.startswith(f"anime_tf.{folder}.")]


def _named(*names):
    return {f"anime_tf.{name}" for name in names}


def test_all_modules_are_looked_at():
    assert {"anime_tf.cli", "anime_tf.datasets.cache"} <= set(MODULES)
    assert "anime_tf.cli" in _of_the_package("anime_tf.__main__")
    assert "tensorflow" in _libraries("anime_tf.training.classifier")
    # Imports inside of functions count too.
    assert "anime_tf.evaluation" in _of_the_package("anime_tf.cli.recognise")


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_the_commands(module):
    assert "scripts" not in _libraries(module)
    commands = {"anime_tf.cli", *_below("cli")}
    if module not in {"anime_tf.__main__", *commands}:
        assert not commands & _of_the_package(module)


@pytest.mark.parametrize("module", _below("datasets"))
def test_datasets_know_pictures_only(module):
    allowed = {"anime_tf"} | _named("images", "errors", "files", "config", "datasets")
    assert _of_the_package(module) <= allowed | set(_below("datasets"))
    if module not in _named("datasets.pipeline", "datasets.character_batches"):
        assert not {"tensorflow", "keras"} & _libraries(module)


@pytest.mark.parametrize("module", _below("models"))
def test_models_know_no_data(module):
    allowed = {"anime_tf"} | _named("errors", "files", "layers", "losses", "models")
    assert _of_the_package(module) <= allowed | set(_below("models"))


@pytest.mark.parametrize(
    "module",
    [*_below("metrics"), *sorted(_named("charts", "errors", "files", "images"))],
)
def test_those_who_know_nobody(module):
    allowed = {"anime_tf"} | _named("errors", "files")
    assert _of_the_package(module) <= allowed
    assert not {"tensorflow", "keras"} & _libraries(module)


@pytest.mark.parametrize("module", sorted(_named("layers", "losses")))
def test_layers_and_losses_know_nobody(module):
    assert _of_the_package(module) <= {"anime_tf"}


def test_asking_a_server_takes_no_tensorflow():
    seen, ahead = set(), {"anime_tf.serving.client", "anime_tf.listing"}
    while ahead:
        seen |= ahead
        ahead = {name for module in ahead for name in _of_the_package(module)} - seen
    assert {"anime_tf.serving.rest", "anime_tf.serving.rpc"} <= seen
    for module in seen - {"anime_tf"}:
        heavy = {"tensorflow", "tensorflow_serving", "keras"}
        assert not heavy & _libraries(module), module


@pytest.mark.parametrize("module", MODULES)
def test_only_training_wires_data_to_models(module):
    known = _of_the_package(module)
    chains = _named("datasets.pipeline", "datasets.character_batches")
    if chains & known and known & set(_below("models")):
        assert module in _below("training")


@pytest.mark.parametrize("module", MODULES)
def test_only_the_server_knows_of_http(module):
    if module not in {*_below("server"), "anime_tf.cli.serve"}:
        assert not {"starlette", "uvicorn", "h11"} & _libraries(module)
        assert not set(_below("server")) & _of_the_package(module)


@pytest.mark.parametrize(
    "module",
    sorted(
        _named(
            *(f"server.{n}" for n in ("batching", "limits", "payloads", "signatures"))
        )
    ),
)
def test_the_protocol_knows_no_models(module):
    assert _of_the_package(module) <= set(_below("server"))
    assert not {"tensorflow", "keras"} & _libraries(module)


@pytest.mark.parametrize("module", MODULES)
def test_habits(module):
    tree = _tree(module)
    assert "pickle" not in _libraries(module)
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Assert), f"{module}:{node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{module}:{node.lineno}"
    # An empty file has nothing to tell.
    assert ast.get_docstring(tree) or not tree.body


def test_the_command_line_starts_without_tensorflow():
    code = (
        "import sys, anime_tf, anime_tf.cli\n"
        "print({'tensorflow', 'keras', 'matplotlib', 'sklearn'} & set(sys.modules))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("set()\n", "")


def test_the_public_names_are_there():
    for name in anime_tf.__all__:
        assert getattr(anime_tf, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = anime_tf.nonsense


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_fast_convolutions_are_on_unless_somebody_chose(given, expected):
    environment = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
    if given:
        environment["TF_ENABLE_ONEDNN_OPTS"] = given
    code = "import os, anime_tf; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert result.stdout.strip() == expected
