"""What raymc's code may not call: whatever runs what a file says. Each exception has its reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "raymc").rglob("*.py"))

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "skops", "tarfile"}
"""Reading with these runs what is read, or writes where an archive says."""
CALLS = {
    "eval", "exec", "compile", "os.system", "os.popen", "pd.read_pickle", "pandas.read_pickle", "torch.hub.load",
    "torch.jit.load", "np.fromfile", "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load",
    "shutil.unpack_archive", "pkgutil.resolve_name",
}  # fmt: skip
METHODS = {"extractall", "extract", "load_model", "log_model"}
"""Of archives; and of MLflow, whose models may be pickles."""
LOADERS = {"torch.load": "weights_only=True", "np.load": "allow_pickle=False", "numpy.load": "allow_pickle=False"}

ALLOWED = {
    ("raymc/datasets/unpickling.py", "import pickle"): "its Unpickler knows six names, all ours",
    ("raymc/storage/stage_store.py", "import pickle"): "for the error that torch.load raises",
    ("raymc/datasets/own_tensors.py", "import pickle"): "for the same error",
    ("raymc/space/yaml_text.py", "yaml.load"): "with a subclass of SafeLoader",
    (
        "raymc/nets/user_nets.py",
        "pkgutil.resolve_name",
    ): "the backbone that a space file names",
    ("raymc/tracking/served.py", "raymc.load_model"): "raymc's own: JSON and safetensors",
}


def findings(text: str) -> Iterator[str]:
    """What in a source text is banned, unless allowed."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
            yield from (f"import {name}" for name in names if name.split(".")[0] in MODULES)
        elif isinstance(node, ast.Call):
            name, given = ast.unparse(node.func), {ast.unparse(word) for word in node.keywords}
            is_method = isinstance(node.func, ast.Attribute) and node.func.attr in METHODS
            if is_method or name in CALLS:
                yield name
            if name in LOADERS and LOADERS[name] not in given:
                yield f"{name} without {LOADERS[name]}"
            if "shell=True" in given or "allow_pickle=True" in given or "weights_only=False" in given:
                yield f"{name} with {', '.join(sorted(given))}"


def test_nothing_in_the_code_runs_what_a_file_says() -> None:
    found = {(str(path.relative_to(ROOT)), what) for path in FILES for what in findings(path.read_text())}
    assert found - ALLOWED.keys() == set()
    assert ALLOWED.keys() - found == set(), "an exception that is no longer needed"


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from joblib import load", "eval(x)", "torch.load(f)", "torch.load(f, weights_only=False)",
        "np.load(f)", "np.load(f, allow_pickle=True)", "yaml.load(f, Loader)", "archive.extractall(place)",
        "subprocess.run(x, shell=True)", "mlflow.pyfunc.load_model(uri)", "import ray.cloudpickle, dill",
    ],
)  # fmt: skip
def test_it_would_be_seen(line: str) -> None:
    assert list(findings(line))


def test_spaces_are_read_by_a_safe_loader() -> None:
    import yaml

    from raymc.space.yaml_text import Loader

    assert issubclass(Loader, yaml.SafeLoader)
