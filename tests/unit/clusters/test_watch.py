import pytest

from sfxflow.clusters.queues import HELD, RUNNING, WAITING, Job
from sfxflow.clusters.watch import Limits, Watch

LIMITS = Limits(queue=100.0, held=50.0, unreachable=30.0)


def jobs(*states):
    return [Job(str(number), state, "because") for number, state in enumerate(states)]


def test_jobs_that_wait():
    """The clock starts when the last one ran, and again when one has left the queue."""
    watch = Watch(LIMITS, 0.0)
    assert watch.look(jobs(WAITING, RUNNING), 90.0) == ""
    assert watch.look(jobs(WAITING, WAITING), 189.0) == ""
    assert watch.look(jobs(WAITING), 195.0) == "", "one has left the queue"
    assert watch.look(jobs(WAITING), 294.0) == ""
    assert watch.look(jobs(WAITING), 295.0) == "1 jobs have waited for 100 s and none runs: because"


def test_empty_queue_is_no_reason():
    """Snakemake works on short rules, which run where it does."""
    watch = Watch(LIMITS, 0.0)
    assert [watch.look([], float(now)) for now in (0, 1000, 2000)] == ["", "", ""]


def test_held_jobs():
    watch = Watch(LIMITS, 0.0)
    assert watch.look(jobs(HELD, WAITING), 49.0) == ""
    assert watch.look(jobs(HELD, HELD), 98.0) == ""
    assert watch.look(jobs(HELD, HELD), 99.0) == "all 2 jobs have been held for 50 s: because"


def test_held_jobs_beside_one_that_waits_count_as_waiting():
    watch = Watch(LIMITS, 0.0)
    assert watch.look(jobs(HELD, WAITING), 100.0) == "2 jobs have waited for 100 s and none runs: because"


def test_queue_that_does_not_answer():
    watch = Watch(LIMITS, 0.0)
    watch.look(jobs(RUNNING), 10.0)
    assert watch.unreachable("no schedd", 39.0) == ""
    assert watch.unreachable("no schedd", 40.0) == "its queue has not answered for 30 s: no schedd"
    assert watch.look(jobs(RUNNING), 41.0) == ""
    assert watch.unreachable("no schedd", 70.0) == ""


@pytest.mark.parametrize(("seconds", "words"), [(119.0, "119 s"), (7200.0, "120 min")])
def test_times_are_for_people(seconds, words):
    watch = Watch(Limits(queue=seconds), 0.0)
    assert f"waited for {words} and" in watch.look(jobs(WAITING), seconds)
