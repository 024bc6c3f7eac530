"""Work spread over processes: order, state, and what happens when a process or its parent dies."""

import os
import signal
import subprocess
import sys
import time

import pytest

from sfxflow.errors import InputError
from sfxflow.parallel import BATCH, ordered_map


def prepare(offset):
    return {"offset": offset, "process": os.getpid(), "done": 0}


def work(state, item):
    state["done"] += 1
    time.sleep(0.002 * (item % 3))
    return item + state["offset"], state["process"], state["done"]


def when(state, item):
    return time.monotonic()


def refuse(_):
    raise InputError("run.h5: no such thing")


def fail(state, item):
    if item == 11:
        raise InputError("item 11 is bad")
    return item


def die(state, item):
    if item == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("n", [0, 1, BATCH, BATCH + 1, 50])
def test_results_come_in_order(n, processes):
    results = list(ordered_map(work, prepare, (100,), range(n), processes))
    assert [value for value, *_ in results] == list(range(100, 100 + n))


def test_each_process_makes_its_state_once():
    results = list(ordered_map(work, prepare, (0,), range(80), 2))
    processes = {process for _, process, _ in results[1:]}
    assert results[0][1] == os.getpid()
    assert os.getpid() not in processes and len(processes) <= 2
    for process in processes:
        counts = [done for _, other, done in results if other == process]
        assert counts == list(range(1, len(counts) + 1))


def test_one_process_is_this_one():
    assert {process for _, process, _ in ordered_map(work, prepare, (0,), range(30), 1)} == {os.getpid()}


@pytest.mark.parametrize("processes", [1, 2])
def test_bad_input_found_by_a_worker_keeps_its_message(processes):
    with pytest.raises(InputError, match=r"^run\.h5: no such thing$"):
        list(ordered_map(work, refuse, (0,), range(40), processes))
    with pytest.raises(InputError, match=r"^item 11 is bad$"):
        list(ordered_map(fail, prepare, (0,), range(40), processes))


def test_a_killed_worker_ends_the_work_with_a_message():
    with pytest.raises(InputError, match="a worker process died .* more memory or fewer threads"):
        list(ordered_map(die, prepare, (0,), range(60), 2))


def test_work_is_not_done_far_ahead_of_its_use():
    """Memory does not grow with the number of items: only some batches are under way."""
    results = ordered_map(when, prepare, (0,), range(2000), 2)
    next(results)
    next(results)
    time.sleep(0.5)
    resumed = time.monotonic()
    done_in_pause = 2 + sum(finished < resumed for finished in results)
    assert 2 * BATCH <= done_in_pause <= 10 * BATCH


_PARENT = """
import os, sys, time
sys.path.insert(0, {folder!r})
from test_parallel_work import prepare, slow
from sfxflow.parallel import ordered_map
for process in ordered_map(slow, prepare, (0,), range(400), 2):
    print(process, flush=True)
"""

_WORK = """
import os, time
def prepare(_):
    return os.getpid()
def slow(state, item):
    time.sleep(0.02)
    return state
"""


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc to see whether processes still run")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    (tmp_path / "test_parallel_work.py").write_text(_WORK)
    script = _PARENT.format(folder=str(tmp_path))
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    workers = set()
    while len(workers) < 2:
        workers.add(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline and any(_runs(pid) for pid in workers):
        time.sleep(0.05)
    assert not [pid for pid in workers if _runs(pid)]


def _runs(pid):
    """True if the process exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as handle:
            return handle.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
