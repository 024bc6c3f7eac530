"""The lock, and the config with its defaults."""

import pytest
import yaml

from sfxflow.errors import InputError
from sfxflow.io.config import read_config, read_runs
from sfxflow.io.lock import described_file, read_lock, write_lock
from sfxflow.settings import STAGES, defaults

CONTENTS = {
    "provenance": {"program": "sfxflow 1"},
    "versions": {"numpy": "2.0"},
    "parameters": {"merging": {"cycles": 8, "d": None}},
    "inputs": {"a.geom": {"size": 3, "sha256": "00"}},
    "pinned": {"d": {"run1": ["/raw/ü 1.h5 //3", "/raw/b.cbf"]}},
    "seen": {"d": {"builtin": {"hit_rate": 0.75, "mergers": {"builtin": {"cc_half": 0.9871234567890123}}}}},
}


def test_a_lock_is_read_as_it_was_written(tmp_path):
    write_lock(tmp_path / "lock.yaml", CONTENTS)
    assert read_lock(tmp_path / "lock.yaml") == {"format": "sfxflow lock 1"} | CONTENTS
    assert (tmp_path / "lock.yaml").read_text().startswith("# What this analysis was made with")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"lock\.yaml: can't be read \(No such file or directory\); `sfxflow lock` writes it"),
        ("a: [", "lock.yaml: is not YAML"),
        ("just: this", "is not a lock of sfxflow"),
        ("[]", "is not a lock of sfxflow"),
        ("format: sfxflow lock 1\nprovenance: {}\nversions: {}", "parameters, inputs, pinned, seen missing"),
    ],
)
def test_what_is_not_a_lock(tmp_path, text, message):
    if text is not None:
        (tmp_path / "lock.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_lock(tmp_path / "lock.yaml")


def test_described_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    # SHA-256 of 'abc' as FIPS 180-2 gives it in its first example
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert described_file(tmp_path / "a") == {"size": 3, "sha256": digest}
    with pytest.raises(InputError, match="b: can't be read"):
        described_file(tmp_path / "b")


def test_every_default_is_filled_in(tmp_path):
    (tmp_path / "c.yaml").write_text("datasets: {d: {cell: a.cell}}\nmerging: {cycles: 5}\npeaks:\n")
    config = read_config(tmp_path / "c.yaml")
    for stage in STAGES:
        assert config[stage] == defaults(stage) | ({"cycles": 5} if stage == "merging" else {})
    assert config["engines"] == config["mergers"] == ["builtin"]
    assert config["datasets"]["d"]["cell"] == "a.cell"
    assert config["datasets"]["d"]["d_min"] is None
    assert config["licences"]["mosflm"] == {"accepted_by": "", "date": None}


def test_a_date_is_text(tmp_path):
    (tmp_path / "c.yaml").write_text("datasets: {d: {}}\nlicences: {xds: {accepted_by: A, date: 2026-01-31}}\n")
    assert read_config(tmp_path / "c.yaml")["licences"]["xds"] == {"accepted_by": "A", "date": "2026-01-31"}


def test_defaults_are_those_of_the_workflow(tmp_path):
    """snakemake's own reading of the same schema."""
    from snakemake.utils import validate

    from sfxflow.io.config_schema import config_schema

    (tmp_path / "c.yaml").write_text("datasets: {d: {split: laser}}\nlicences: {xds: {accepted_by: A}}\n")
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(config_schema()))
    theirs = yaml.safe_load((tmp_path / "c.yaml").read_text())
    validate(theirs, str(tmp_path / "schema.yaml"))
    assert read_config(tmp_path / "c.yaml") == theirs


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "`sfxflow init` writes a config"), ("a: [", "is not YAML"), ("- 1", "a config with sections is expected")],
)
def test_a_config_that_is_none(tmp_path, text, message):
    if text is not None:
        (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_config(tmp_path / "c.yaml")


def test_table_of_the_runs(tmp_path):
    path = tmp_path / "runs.tsv"
    path.write_text("# note\nrun\tdataset\tframes\tgeometry\tmask\tn_frames\tlaser\na\td\tx.h5\tg.geom\t\t3\t on \n")
    assert read_runs(path) == [
        {"run": "a", "dataset": "d", "frames": "x.h5", "geometry": "g.geom", "mask": "", "n_frames": "3", "laser": "on"}
    ]
    path.write_text("run dataset frames geometry n_frames\na d x g 3\n")
    with pytest.raises(InputError, match=r"runs\.tsv: no column run; a table of runs is expected, with tabs"):
        read_runs(path)
