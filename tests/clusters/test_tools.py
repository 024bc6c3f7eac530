"""What a machine can't have is told in words, and a real cluster is left alone."""

import os

import pytest
import tools


def test_no_debian(monkeypatch, tmp_path):
    monkeypatch.setenv("SFXFLOW_TOOLS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(tools.Missing, match="not a Debian machine: no apt-get"):
        tools.htcondor()


def test_no_mirror(monkeypatch, tmp_path):
    """apt's own words where the mirror does not answer."""
    monkeypatch.setenv("SFXFLOW_TOOLS", str(tmp_path))
    monkeypatch.setattr(tools, "_mirror", lambda: (tmp_path / "no mirror").as_uri())
    with pytest.raises(tools.Missing, match=r"apt-get -qq \w+ ... failed: "):
        tools.htcondor()


@pytest.mark.skipif(os.getuid() != 0, reason="Slurm is for root only")
def test_machine_of_a_slurm_cluster(monkeypatch, tmp_path):
    configuration = tmp_path / "slurm.conf"
    configuration.write_text("ClusterName=real\n")
    monkeypatch.setattr(tools, "SLURM_CONFIGURATION", configuration)
    with pytest.raises(tools.Missing, match="is part of a Slurm cluster"):
        tools.slurm()
    assert configuration.read_text() == "ClusterName=real\n"
