import shutil
import subprocess

from sfxflow.cli import doctor, main


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
