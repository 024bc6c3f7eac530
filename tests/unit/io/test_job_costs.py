"""What jobs took: the command's own word first, then Snakemake's samples, then nothing."""

import pytest

from sfxflow.io.job_costs import Cost, cost_line, cost_of_job, together

HEAD = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("logs", "benchmarks"):
        (tmp_path / name / "builtin/runs/a").mkdir(parents=True)
    return tmp_path


def write(folder, log=None, benchmark=None):
    if log is not None:
        (folder / "logs/builtin/runs/a/0000.peaks.log").write_text(log)
    if benchmark is not None:
        (folder / "benchmarks/builtin/runs/a/0000.peaks.tsv").write_text(benchmark)
    return cost_of_job("results/builtin/runs/a/0000.peaks")


ROW = "29.83\t0:00:29\t312.72\t671.19\t288.68\t299.31\t0.05\t1.21\t50.03\t15.53\n"


def test_what_the_command_says_comes_first(folder):
    """Snakemake's last sample of a job of 30 s may be 15 s old."""
    assert write(folder, f"hits\n{cost_line(28.114)}\n", HEAD + ROW) == (28.11, 299.31)


def test_the_last_line_of_a_log_that_has_two(folder):
    assert write(folder, f"{cost_line(3)}\nagain\n{cost_line(4)}\n").cpu == 4.0


def test_samples_where_the_log_says_nothing(folder):
    assert write(folder, "a program of others\n", HEAD + ROW) == (15.53, 299.31)


def test_memory_with_shared_pages_where_no_other_is_known(folder):
    assert write(folder, None, HEAD + ROW.replace("299.31", "0.00")).memory == 312.72


@pytest.mark.parametrize(
    "benchmark", [None, "", HEAD, HEAD + "0.10\t0:00:00" + "\tNA" * 8 + "\n", "\x00\x01", HEAD + "1.0\n"]
)
def test_not_known(folder, benchmark):
    assert write(folder, None, benchmark) == (None, None)


def test_a_path_outside_of_the_results(folder):
    assert cost_of_job("elsewhere/0000.peaks") == (None, None)


def test_together():
    assert together([Cost(1.0, 10.0), Cost(2.0, 30.0)]) == (3.0, 30.0)
    assert together([Cost(1.0, 10.0), Cost(None, 30.0)]) == (None, 30.0)
    assert together([]) == (None, None)
