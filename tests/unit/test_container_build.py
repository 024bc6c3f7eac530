"""containers/build.py: what it says where it can't build, and when an image is up to date."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sfxflow

HERE = Path(__file__).parents[2] / "containers"


@pytest.fixture
def build(monkeypatch, tmp_path):
    """The script, which builds in a folder of its own."""
    spec = importlib.util.spec_from_file_location("container_build", HERE / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SCRATCH", tmp_path / "scratch")
    return module


def programs(monkeypatch, *there):
    """Let only these programs be there."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name in there else None)


def call(build, monkeypatch, *argv):
    monkeypatch.setattr(sys, "argv", ["build.py", *argv])
    return build.main()


def test_every_definition_has_a_container(build):
    assert sorted(build.CONTAINERS) == sorted(path.stem for path in HERE.glob("*.def"))
    for name in build.CONTAINERS:
        text = (HERE / f"{name}.def").read_text()
        assert f"    version={sfxflow.__version__}\n" in text
        assert f"wheels-{build.CONTAINERS[name][0]}\n" in text


def test_an_image_carries_the_version(build):
    assert build.image("dials").name == f"dials-{sfxflow.__version__}.sif"


def test_pinned_versions_are_those_of_the_package(build):
    """What the package asks for and what is installed into an image: every package has one version."""
    pinned = [line.split("==")[0] for line in (HERE / "constraints.txt").read_text().splitlines() if "==" in line]
    text = (HERE.parent / "pyproject.toml").read_text()
    asked = [
        line.split('"')[1] for line in text.partition("\ndependencies")[2].partition("]")[0].splitlines() if '"' in line
    ]
    names = [line.split(">")[0].split("=")[0].lower() for line in asked]
    assert set(names) <= set(pinned)


def test_no_such_container(build, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        call(build, monkeypatch, "dails")
    assert ended.value.code == 2
    assert "dails: no such container; there are builtin, crystfel, dials" in capsys.readouterr().err


def test_no_apptainer(build, monkeypatch):
    programs(monkeypatch)
    with pytest.raises(SystemExit, match="apptainer is not installed; your system's package manager"):
        call(build, monkeypatch)


@pytest.mark.parametrize(
    ("there", "user", "mirror", "message"),
    [
        (["debootstrap"], 0, None, "this machine has no Debian mirror in /etc/apt; --base docker"),
        ([], 0, "http://mirror", "debootstrap is not installed: apt-get install debootstrap; --base docker"),
        (["debootstrap"], 1000, "http://mirror", "debootstrap needs root; --base docker starts from"),
    ],
)
def test_plain_debian_can_not_be_had(build, monkeypatch, capsys, there, user, mirror, message):
    """The others are still tried, and the exit status says that something is missing."""
    programs(monkeypatch, "apptainer", *there)
    monkeypatch.setattr(build, "mirror", lambda: mirror)
    monkeypatch.setattr(build.os, "getuid", lambda: user)
    monkeypatch.setattr(build, "is_up_to_date", lambda name, apptainer: False)
    assert call(build, monkeypatch, "--base", "debootstrap", "builtin", "dials") == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"containers/builtin-{sfxflow.__version__}.sif: not built: {message}")
    assert said[1].startswith(f"containers/dials-{sfxflow.__version__}.sif: not built: {message}")


def test_a_failed_build_leaves_the_image_as_it_was(build, monkeypatch, capsys, tmp_path):
    old = tmp_path / "builtin.sif"
    old.write_text("old")
    programs(monkeypatch, "apptainer")
    monkeypatch.setattr(build, "image", lambda name: old)
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "version", lambda: "0.1.0")
    monkeypatch.setattr(build, "sources", lambda: "0123")
    monkeypatch.setattr(build, "wheels", lambda python: tmp_path / "wheels")
    monkeypatch.setattr(subprocess, "run", lambda *argv, **options: subprocess.CompletedProcess(argv, 1, "", ""))
    assert call(build, monkeypatch, "--base", "docker", "builtin") == 1
    assert "not built: " in capsys.readouterr().out
    assert old.read_text() == "old"


def test_an_image_is_up_to_date_as_long_as_its_sources(build, monkeypatch, tmp_path):
    image = tmp_path / "builtin.sif"
    monkeypatch.setattr(build, "image", lambda name: image)
    label = f"sfxflow.sources: {build.sources()}\n"
    monkeypatch.setattr(subprocess, "run", lambda *argv, **options: subprocess.CompletedProcess(argv, 0, label, ""))
    assert not build.is_up_to_date("builtin", "apptainer")
    image.touch()
    assert build.is_up_to_date("builtin", "apptainer")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "HERE", tmp_path / "containers")
    (tmp_path / "src").mkdir()
    (tmp_path / "containers").mkdir()
    (tmp_path / "src/x.py").write_text("x = 1")
    assert not build.is_up_to_date("builtin", "apptainer")
    first = build.sources()
    (tmp_path / "src/x.py").write_text("x = 2")
    assert build.sources() != first
