"""docs/performance.json and its page: several runs of benchmarks/run.py at a time keep each other's figures."""

import fcntl
import importlib.util
import json
import os
import threading
from pathlib import Path

import pytest

_FOLDER = Path(__file__).parents[2] / "benchmarks"


def found(value):
    row = {"what": "a figure", "reach": "", "seen": value, "unit": "ms", "ok": None, "note": ""}
    return {"seconds": 1.0, "rows": [row]}


@pytest.fixture
def run(monkeypatch):
    monkeypatch.syspath_prepend(str(_FOLDER))
    spec = importlib.util.spec_from_file_location("benchmark_run", _FOLDER / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def figures(path):
    """Name of each benchmark to what it has seen."""
    return {name: value["rows"][0]["seen"] for name, value in json.loads(path.read_text())["benchmarks"].items()}


def test_a_run_waits_for_another_that_writes_and_keeps_its_figures(run, tmp_path):
    path = tmp_path / "performance.json"
    run.record(path, {"python": "3"}, "peaks", found(1))
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    late = threading.Thread(target=run.record, args=(path, {"python": "3"}, "merging", found(2)))
    late.start()
    late.join(0.3)
    waited = late.is_alive()
    contents = json.loads(path.read_text())
    contents["benchmarks"]["splits"] = found(3)
    path.write_text(json.dumps(contents))
    os.close(other)
    late.join()
    assert waited
    assert figures(path) == {"peaks": 1, "merging": 2, "splits": 3}
    page = (tmp_path / "performance.md").read_text()
    assert [run.BENCHMARKS[name] in page for name in ("peaks", "merging", "splits", "geometry")] == [True] * 3 + [False]


def test_earlier_figures_of_a_benchmark_that_failed_go(run, tmp_path):
    path = tmp_path / "performance.json"
    for name in ("peaks", "splits"):
        run.record(path, {}, name, found(1))
    run.record(path, {}, "peaks", None)
    assert figures(path) == {"splits": 1}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["performance.json", "performance.md", "performance.svg"]
