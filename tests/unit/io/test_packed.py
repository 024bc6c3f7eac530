"""Packages and workflow in one archive."""

import os
import subprocess
import sys
import tarfile

import pytest

from sfxflow.errors import InputError
from sfxflow.io.packed import files_to_pack, fingerprint, needed_distributions, packed_fingerprint, write_packed


def names(distributions):
    return {distribution.metadata["Name"].lower() for distribution in distributions}


def test_packages_bring_what_they_need():
    assert {"h5py", "numpy"} <= names(needed_distributions(["h5py"]))
    found = names(needed_distributions(["sfxflow"]))
    assert {"sfxflow", "numba", "llvmlite", "hdf5plugin", "gemmi"} <= found
    assert not found & {"matplotlib", "pytest", "snakemake"}


def test_what_is_not_installed():
    with pytest.raises(InputError, match="no-such-package: not installed in"):
        needed_distributions(["no-such-package"])


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    for name, text in (
        ("Snakefile", "rule all:\n"),
        ("workflow/rules/a.smk", "x = 1\n"),
        ("src/sfxflow/__init__.py", ""),
        ("src/sfxflow/__main__.py", "import msgpack, sys\nprint(msgpack.__file__, sys.argv[1:])\n"),
        ("src/sfxflow/__pycache__/__init__.f-1.py311.nbi", "compiled"),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_unpacked_it_runs_by_itself(checkout, tmp_path):
    """With packages of the archive, not with those of the machine."""
    files = files_to_pack(needed_distributions(["msgpack"]), checkout)
    write_packed(tmp_path / "packed.tar.gz", files)
    there = tmp_path / "there"
    there.mkdir()
    subprocess.run(["tar", "-xzf", tmp_path / "packed.tar.gz", "-C", there], check=True)
    assert (there / "workflow/workflow/rules/a.smk").read_text() == "x = 1\n"
    assert (there / "python").read_text() == f"python{sys.version_info.major}.{sys.version_info.minor}\n"
    environment = {"PYTHONPATH": str(there / "packages"), "SFXFLOW_PYTHON": sys.executable, "PATH": os.environ["PATH"]}
    printed = subprocess.run(
        [there / "bin/sfxflow", "peaks", "a b"], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert str(there) in printed
    assert printed.endswith("['peaks', 'a b']\n")


def test_times_of_sources_are_kept_to_the_fraction(checkout, tmp_path):
    """What numba compiled is for a source of exactly that time."""
    source = checkout / "src/sfxflow/__init__.py"
    os.utime(source, ns=(10**18 + 123456000, 10**18 + 123456000))
    write_packed(tmp_path / "packed.tar.gz", files_to_pack([], checkout))
    with tarfile.open(tmp_path / "packed.tar.gz") as archive:
        assert archive.getmember("packages/sfxflow/__init__.py").mtime == pytest.approx(10**9 + 0.123456, abs=1e-6)


def test_compiled_for_an_earlier_source_is_left_out(checkout):
    compiled = "packages/sfxflow/__pycache__/__init__.f-1.py311.nbi"
    assert compiled in files_to_pack([], checkout)
    later = (checkout / "src/sfxflow/__pycache__/__init__.f-1.py311.nbi").stat().st_mtime + 1
    os.utime(checkout / "src/sfxflow/__init__.py", (later, later))
    assert compiled not in files_to_pack([], checkout)


def test_fingerprint_tells_a_changed_source(checkout, tmp_path):
    files = files_to_pack([], checkout)
    write_packed(tmp_path / "packed.tar.gz", files)
    assert packed_fingerprint(tmp_path / "packed.tar.gz") == fingerprint(files)
    (checkout / "Snakefile").write_text("rule all:\n    # changed\n")
    assert packed_fingerprint(tmp_path / "packed.tar.gz") != fingerprint(files_to_pack([], checkout))


def test_fingerprint_of_what_is_no_archive(tmp_path):
    assert packed_fingerprint(tmp_path / "none.tar.gz") is None
    (tmp_path / "text.tar.gz").write_text("text")
    assert packed_fingerprint(tmp_path / "text.tar.gz") is None
