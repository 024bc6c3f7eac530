import shutil
import subprocess
import sys

import pytest

import sfxflow
from sfxflow.cli import doctor, main
from sfxflow.licences import LICENCES


def test_what_is_installed_is_said(capsys):
    status = main(["doctor"])
    text = capsys.readouterr().out
    assert "Engine builtin" in text
    assert "ok       numpy" in text
    assert "Cluster htcondor" in text
    assert "Cluster slurm" in text
    assert status in (0, 1)


def test_a_missing_package(capsys, monkeypatch):
    monkeypatch.setitem(doctor.PACKAGES, "no-such-package", "no_such_package")
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "missing  no-such-package\n           make demo" in text
    assert "can't run on this machine" in text


def test_snakemake_is_too_old(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda package: "8.30.0" if package == "snakemake" else "1")
    assert main(["doctor"]) == 1
    assert "missing  snakemake 8.30.0, but 9.25 or newer and below 10 is needed" in capsys.readouterr().out


def test_a_cluster_that_does_not_answer(capsys, monkeypatch):
    answers = subprocess.CompletedProcess([], 1, stdout="", stderr="error\nCan't find address of the collector\n")
    monkeypatch.setattr(shutil, "which", lambda name: f"bin/{name}")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: answers)
    main(["doctor"])
    text = capsys.readouterr().out
    assert "missing  condor_status answers\n           it does not: Can't find address of the collector" in text
    assert "snakemake --profile htcondor does not work from here" in text


def test_a_cluster_that_answers(capsys, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"bin/{name}")
    monkeypatch.setattr(doctor, "_version", lambda package: "9.27.1")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: subprocess.CompletedProcess([], 0, "", ""))
    assert main(["doctor"]) == 0
    assert "snakemake --profile slurm works from here" in capsys.readouterr().out


# ---- engines beside the built-in one --------------------------------------------------------------------------------

INDEXAMAJIG = """\
#!/bin/sh
if [ "$1" = --version ]; then echo "CrystFEL: 0.12.0-113-g80f24855+"; echo "License GPLv3+"; exit 0; fi
# Whoever is started without --indexing says its methods; mosflm is not to be found by it.
command -v mosflm >/dev/null && echo "Auto-determined indexing methods: mosflm" && exit 0
echo "Auto-determined indexing methods: taketwo,asdf" >&2
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Make programs that alone are on the search path, from name and text."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(name, text="#!/bin/sh\n"):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    return make


def said(capsys):
    main(["doctor"])
    return capsys.readouterr().out


def test_engines_that_are_missing(programs, capsys):
    """They are optional: the workflow does not need them."""
    text = said(capsys)
    assert "missing  indexamajig\n           CrystFEL (https://www.desy.de/~twhite/crystfel" in text
    assert "missing  DIALS\n           Debian and Ubuntu: apt-get install dials" in text
    assert "missing  merger cctbx_xfel_merge" in text


def test_crystfel_its_version_and_methods(programs, capsys):
    programs("indexamajig", INDEXAMAJIG)
    programs("partialator")
    text = said(capsys)
    assert "ok       indexamajig 0.12.0-113-g80f24855\n" in text
    assert "ok       partialator\n  missing  process_hkl" in text
    assert "indexing methods that it was built with: taketwo, asdf (" in text


def test_methods_with_terms_of_their_own(programs, capsys):
    """Each is explained, whether it is there or not, and none of them is started."""
    programs("indexamajig", INDEXAMAJIG)
    programs("mosflm", "#!/bin/sh\necho started > mosflm_was_here\nexit 1\n")
    text = said(capsys)
    assert "found    mosflm: MOSFLM, from iMosflm" in text
    assert "absent   xds: XDS" in text
    assert "absent   dirax: DirAx" in text
    assert "built with: taketwo, asdf" in text
    for licence in LICENCES.values():
        assert f"read {licence.read}" in text


def test_indexamajig_without_its_library(programs, capsys):
    programs("indexamajig", "#!/bin/sh\necho 'error while loading shared libraries' >&2\nexit 127\n")
    text = said(capsys)
    assert "missing  indexamajig" in text
    assert "is there, but does not start: a library that it needs is missing" in text


def test_indexamajig_that_does_not_say_its_methods(programs, capsys):
    programs("indexamajig", "#!/bin/sh\necho CrystFEL: 0.10.2\n")
    assert "it does not say which indexing methods it was built with" in said(capsys)


SAYS_NO = "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'xfel_mono_sim_ext'\" >&2\nexit 1\n"


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ({"dials.version": f"#!{sys.executable} -SE\nprint('DIALS 3.12')\n"}, "sfxflow gives it an empty one"),
        ({"dials.version": "#!/bin/sh\necho 'DIALS 3.12'\n", "dials.python": SAYS_NO}, "gives it an empty one"),
        ({"dials.version": "#!/bin/sh\necho 'DIALS 3.12'\n", "dials.python": "#!/bin/sh\n"}, "is complete"),
    ],
    ids=["script of Python", "dispatchers, without it", "dispatchers, with it"],
)
def test_dials_and_the_module_that_its_package_leaves_out(programs, capsys, there, words):
    for name, script in there.items():
        programs(name, script)
    programs("dials.find_spots")
    text = said(capsys)
    assert "ok       DIALS 3.12\n  ok       dials.find_spots\n  missing  dials.ssx_index" in text
    assert words in text


# ---- containers -----------------------------------------------------------------------------------------------------


def containers_said(capsys, folder, monkeypatch, program):
    """What is said of containers in a folder, with a program to start them or without."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(doctor, "container_program", lambda: program)
    main(["doctor"])
    return capsys.readouterr().out.partition("\nContainers")[2]


def test_no_apptainer(capsys, tmp_path, monkeypatch):
    text = containers_said(capsys, tmp_path, monkeypatch, None)
    assert "missing  apptainer\n           your system's package manager or administrator installs it" in text


def test_an_image_of_another_version_only(capsys, tmp_path, monkeypatch):
    (tmp_path / "containers").mkdir()
    (tmp_path / "containers/crystfel-0.0.1.sif").touch()
    text = containers_said(capsys, tmp_path, monkeypatch, None)
    assert (
        f"missing  containers/crystfel-{sfxflow.__version__}.sif\n           make containers CONTAINERS=crystfel builds it"
        in text
    )
    assert "; containers/crystfel-0.0.1.sif is of another version" in text


def test_images_are_started(capsys, tmp_path, monkeypatch):
    (tmp_path / "containers").mkdir()
    for name in ("crystfel", "dials"):
        (tmp_path / f"containers/{name}-{sfxflow.__version__}.sif").touch()
    program = tmp_path / "apptainer"
    program.write_text(
        f'#!/bin/sh\ncase "$2" in *dials*) echo sfxflow {sfxflow.__version__};; *) echo "FATAL: no squashfuse" >&2; exit 255;; esac\n'
    )
    program.chmod(0o755)
    text = containers_said(capsys, tmp_path, monkeypatch, program)
    assert f"ok       containers/dials-{sfxflow.__version__}.sif\n" in text
    assert (
        f"missing  containers/crystfel-{sfxflow.__version__}.sif\n           it does not start: FATAL: no squashfuse; Apptainer"
        in text
    )
