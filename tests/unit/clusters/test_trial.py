import re
from pathlib import Path

import pytest

from sfxflow.clusters.queues import CLUSTERS, WAITING, Job
from sfxflow.clusters.trial import bound_folders, read_answer, too_large, why_it_waits

ROOT = Path(__file__).parents[3]

QUESTION = {"token": "t"}
ANSWER = {"host": "node7", "token": "t", "version": "1.0", "missing": [], "missing_binds": [], "images": []}


def words(**changes):
    return [found.what for found in read_answer(QUESTION, ANSWER | changes, "1.0")]


def image(problem, said=""):
    return [{"image": "/w/x.sif", "problem": problem, "said": said}]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"token": "u"}, "node7 read another file than was written here"),
        ({"version": "0.9"}, "node7 runs sfxflow 0.9, here it is 1.0"),
        ({"missing": ["/raw/x.h5"]}, "node7 can't read /raw/x.h5"),
        ({"missing_binds": ["/gone"]}, "/gone, which apptainer-args of the profile binds into the container, does not exist on node7"),
        ({"images": image("absent")}, "/w/x.sif is not there on node7"),
        ({"images": image("no apptainer")}, "Apptainer is not installed on node7"),
        ({"images": image("version", "0.9")}, "/w/x.sif holds sfxflow 0.9, here it is 1.0"),
        ({"images": image("does not start", "image format not recognized")}, "the image is corrupt or not an image"),
        ({"images": image("does not start", "Failed to create user namespace")}, "Apptainer may not start containers on the worker: it has neither user namespaces nor its setuid part"),
        ({"images": image("does not start", "odd")}, "/w/x.sif does not start on node7"),
    ],
)  # fmt: skip
def test_what_a_machine_lacks(changes, said):
    assert words(**changes) == [said]


def test_machine_where_all_is_well():
    assert words(images=image("")) == []


@pytest.mark.parametrize(
    ("arguments", "folders"),
    [
        ("", []),
        ("-u", []),
        ("--bind /a:/b,/c -B /d --bind=/e:/f:ro", ["/a", "/c", "/d", "/e"]),
        ("--bind '/with space:/x'", ["/with space"]),
    ],
)
def test_folders_that_are_bound(arguments, folders):
    assert bound_folders(arguments) == folders


SLOTS = [{"cores": 64, "memory": 1000, "disk": 10}, {"cores": 4, "memory": 90000, "disk": 10}]


def test_job_that_fits_no_machine():
    """Each is enough in one of them, but no machine has both."""
    found = too_large({"cores": 8, "memory": 8000}, SLOTS)
    assert found.what == (
        "no slot is that large: the job asks for 8 cores, 8000 MB of memory; "
        "the most that the pool's machines have is 64 cores, 90000 MB of memory, 10 MB of disk"
    )
    assert too_large({"cores": 4, "memory": 8000}, SLOTS) is None
    assert too_large({}, []).what == "the pool has no machine"


def test_job_that_waits_on_slurm():
    assert why_it_waits(CLUSTERS["slurm"], Job("1", WAITING, "PartitionConfig")).what.startswith(
        "Slurm has no such partition"
    )
    assert why_it_waits(CLUSTERS["slurm"], Job("1", WAITING, "Priority")).what == "the job waits: Priority"


def test_trial_asks_for_what_merging_asks():
    """The largest job of the built-in engine: where that one runs, all do."""
    trial, merging = (ROOT / path for path in ("src/sfxflow/clusters/trial.smk", "workflow/rules/merging.smk"))
    assert asked(trial, "threads", "mem_mb") == asked(merging, "threads", "mem_mb")
    assert asked(trial, "htcondor_request_mem_mb") == asked(trial, "mem_mb")


def asked(path, *names):
    """What the first rule of a file asks for."""
    text = path.read_text()
    return [int(re.search(rf"(?m)^ +{name}[:=]\s*(\d+)", text).group(1)) for name in names]
