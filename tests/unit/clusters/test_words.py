"""The messages are those that the programs really print, collected from a real pool, a real Slurm and Apptainer."""

import pytest

from sfxflow.clusters.words import explained, finding, short


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ('File specified in CONDOR_CONFIG environment variable:\n"/nowhere" does not exist.', "HTCondor has no configuration"),
        ("Neither the environment variable CONDOR_CONFIG,\n/etc/condor/ contain a condor_config source.", "HTCondor has no configuration"),
        ("Error: (null) Extra Info: You probably saw this error because the condor_schedd is not \nrunning", "no schedd answers"),
        ("htcondor2_impl.HTCondorException: Unable to locate local daemon.", "no schedd answers"),
        ("Can't find \"condor\" in the password file and CONDOR_IDS not defined in condor_config", "HTCondor takes no jobs of root"),
        ('Setting job owner to "root" is not permitted', "HTCondor takes no jobs of root"),
        ("Failed to create new cluster.SCHEDD:13:Cannot allocate a cluster id", "the pool refuses"),
        ("sbatch: error: invalid partition specified: nowhere", "Slurm has no such partition"),
        ("sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified", "Slurm does not know the account"),
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available", "no node of the partition"),
        ("sbatch: error: Memory specification can not be satisfied", "no node of the partition"),
        ("PartitionTimeLimit", "the partition does not allow jobs that long"),
        ("sinfo: fatal: Could not establish a configuration source", "Slurm's controller does not answer"),
        ("slurm_load_partitions: Unable to contact slurm controller (connect failure)", "Slurm's controller does not answer"),
        ("sbatch: error: Munge encode failed: Failed to access \"/run/munge/munge.socket.2\"", "Slurm's authentication"),
        ("Error from slot1_1@vm: memory usage exceeded request_memory", "the job used more memory"),
        ("Transfer output files failure at the execution point", "the pool could not bring files"),
        ("via condor_hold (by user daemon)", "somebody holds the jobs"),
        ("JobHeldUser", "somebody holds the jobs"),
        ("ERROR  : Failed to create user namespace: not allowed to create user namespace", "Apptainer may not start containers"),
        ("FATAL: container creation failed: mount hook function failure: mount /none->/none error: while mounting /none: mount source /none doesn't exist", "a folder that is to be bound"),
        ("FATAL:   While checking container encryption: could not open image /w/x.sif: image format not recognized", "the image is corrupt"),
        ("OSError: [Errno 28] No space left on device", "a disk is full"),
        ("/bin/bash: line 1: sfxflow: command not found", "the job does not find the program sfxflow"),
        ("/usr/bin/python3: No module named snakemake", "the worker does not have the Python environment"),
    ],
)  # fmt: skip
def test_what_programs_say_in_words(said, what):
    found = explained(said)
    assert found.what.startswith(what)
    assert found.remedy
    assert found.said


def test_message_that_nobody_knows():
    """It is handed on as it is, never guessed at."""
    assert explained("the moon is in the way") is None
    found = finding("the moon is in the way", "it does not work", "wait")
    assert (found.what, found.remedy, found.said) == ("it does not work", "wait", "the moon is in the way")


def test_long_messages_are_cut():
    assert short("a\n  b " + 300 * "c", 10) == "a b cccccc ..."
