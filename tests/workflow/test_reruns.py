"""What is computed again when something changes: each promise of the design as a dry run on a finished experiment."""

import os
import shutil

CHUNKS = ("builtin_peaks", "builtin_indexing", "builtin_integration")
AFTER_MERGING = {"figures_of_merit", "export", "report"}


def test_finished_is_finished(finished):
    assert finished.planned() == {}


def test_merging_setting(finished):
    finished.config["merging"]["cycles"] = 5
    jobs = finished.planned()
    assert jobs.keys() == {"builtin_merging"} | AFTER_MERGING
    assert len(jobs["builtin_merging"]) == 2


def test_two_settings_that_swap_their_values(finished):
    """Snakemake compares the values of parameters without their names."""
    finished.config["merging"] = {"cycles": 2, "min_measurements": 4}
    assert finished.planned().keys() == {"builtin_merging"} | AFTER_MERGING


def test_order_of_the_keys(finished):
    finished.config["merging"] = {"min_measurements": 2, "cycles": 4}
    finished.config = dict(reversed(finished.config.items()))
    assert finished.planned() == {}


def test_a_default_that_is_written_out(finished):
    finished.config["peaks"] = {"min_snr": 4, "min_pix_count": 2}
    finished.config["merging"]["min_partiality"] = 0.02
    assert finished.planned() == {}


def test_peaks_setting(finished):
    finished.config["peaks"] = {"min_snr": 5.0}
    jobs = finished.planned()
    assert jobs.keys() == {*CHUNKS, "frames", "ambiguity", "builtin_merging"} | AFTER_MERGING
    assert len(jobs["builtin_peaks"]) == 5


def test_indexing_setting(finished):
    finished.config["indexing"] = {"max_lattices": 2}
    assert finished.planned().keys() == {*CHUNKS[1:], "frames", "ambiguity", "builtin_merging"} | AFTER_MERGING


def test_integration_setting(finished):
    finished.config["integration"] = {"method": "rings"}
    assert (
        finished.planned().keys() == {"builtin_integration", "frames", "ambiguity", "builtin_merging"} | AFTER_MERGING
    )


def test_ambiguity_setting(finished):
    finished.config["ambiguity"] = {"min_margin": 5.0}
    jobs = finished.planned()
    assert jobs.keys() == {"ambiguity", "builtin_merging"} | AFTER_MERGING
    assert len(jobs["ambiguity"]) == 2


def test_reference_that_is_compared_with(finished):
    """It also chooses among the ways to index all crystals alike, unless the settings say otherwise."""
    shutil.copy(finished.folder / "raw/lysozyme.cell", finished.folder / "raw/truth.hkl")
    finished.config["datasets"]["lysozyme"]["reference"] = "raw/truth.hkl"
    jobs = finished.planned()
    assert jobs["ambiguity"] == {"Resolving the indexing ambiguity of lysozyme (builtin)"}
    assert jobs["builtin_merging"] == {"Scaling and merging lysozyme (builtin)"}
    finished.config["ambiguity"] = {"reference": "none"}
    finished.snakemake()
    del finished.config["datasets"]["lysozyme"]["reference"]
    assert finished.planned().keys() == {"figures_of_merit", "report"}


def test_figures_of_merit_setting(finished):
    finished.config["figures_of_merit"] = {"n_shells": 20}
    assert finished.planned().keys() == {"figures_of_merit", "report"}


def test_export_setting(finished):
    finished.config["export"] = {"free_fraction": 0.05}
    assert finished.planned().keys() == {"export"}


def test_report_setting(finished):
    finished.config["report"] = {"title": "Beamtime"}
    assert finished.planned().keys() == {"report"}


def test_resolution_of_one_dataset(finished):
    finished.config["datasets"]["lysozyme"]["d_min"] = 2.0
    jobs = finished.planned()
    assert jobs.keys() == {"builtin_merging"} | AFTER_MERGING
    assert jobs["builtin_merging"] == {"Scaling and merging lysozyme (builtin)"}


def test_space_group_of_one_dataset(finished):
    finished.config["datasets"]["thaumatin"]["space_group"] = "P43212"
    jobs = finished.planned()
    assert jobs["builtin_indexing"] == {"Indexing chunk 0000 of run c"}
    assert jobs["builtin_merging"] == {"Scaling and merging thaumatin (builtin)"}
    assert "builtin_peaks" not in jobs


def test_another_run(finished):
    shutil.copy(finished.folder / "raw/b.h5", finished.folder / "raw/d.h5")
    finished.runs.insert(
        1, {"run": "d", "dataset": "lysozyme", "frames": "raw/d.h5", "geometry": "raw/one.geom", "n_frames": 101}
    )
    jobs = finished.planned()
    for rule in CHUNKS:
        assert len(jobs[rule]) == 2
        assert all(message.endswith("of run d") for message in jobs[rule])
    assert jobs["frames"] == {"Gathering the frame account of run d (builtin)"}
    assert jobs["builtin_merging"] == {"Scaling and merging lysozyme (builtin)"}
    assert jobs.keys() == {*CHUNKS, "frames", "ambiguity", "builtin_merging"} | AFTER_MERGING


def test_a_run_less(finished):
    del finished.runs[1]
    jobs = finished.planned()
    assert jobs.keys() == {"ambiguity", "builtin_merging"} | AFTER_MERGING
    assert jobs["builtin_merging"] == {"Scaling and merging lysozyme (builtin)"}


def test_another_column(finished):
    for row in finished.runs:
        row["temperature"] = "293"
    assert finished.planned() == {}


def test_geometry_of_one_run(finished):
    shutil.copy(finished.folder / "raw/one.geom", finished.folder / "raw/three.geom")
    finished.runs[1]["geometry"] = "raw/three.geom"
    jobs = finished.planned()
    for rule in CHUNKS:
        assert [message.rsplit(" ", 1)[-1] for message in jobs[rule]] == ["b"]
    assert jobs["builtin_merging"] == {"Scaling and merging lysozyme (builtin)"}


def test_mask_of_one_run(finished):
    finished.runs[2]["mask"] = "raw/mask.h5"
    jobs = finished.planned()
    assert jobs["builtin_peaks"] == {"Finding peaks in chunk 0000 of run c"}
    assert jobs["builtin_integration"] == {"Integrating chunk 0000 of run c"}


def test_changed_frames_of_one_run(finished):
    (finished.folder / "raw/b.h5").write_text("taken again")
    os.utime(finished.folder / "raw/b.h5")
    assert finished.planned()["builtin_peaks"] == {"Finding peaks in chunk 0000 of run b"}


def test_another_version_of_the_package(finished):
    metadata = finished.folder / "other/sfxflow-99.0.dist-info/METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: sfxflow\nVersion: 99.0\n")
    finished.environment["PYTHONPATH"] = str(finished.folder / "other")
    assert finished.planned().keys() == {*CHUNKS, "frames", "ambiguity", "builtin_merging"} | AFTER_MERGING


def test_other_resources(finished):
    """Threads, memory and time belong to profiles and rules, not to the results."""
    assert (
        finished.planned("--cores", "1", "--set-threads", "builtin_peaks=1", "--default-resources", "mem_mb=500") == {}
    )


def test_a_deleted_intermediate_file(finished):
    (finished.folder / "results/builtin/runs/a/0001.indexed.h5").unlink()
    assert finished.planned() == {}
