"""Frames at a server: the stages read them as those of a file, a chunk fetches its own files only, and tables say which content is meant."""

import h5py
import numpy as np
import pytest
from file_server import FileServer

from sfxflow.cli import main
from sfxflow.io import remote_files

N_FRAMES, IN_FILE = 12, 4


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Simulated frames in three files, and peaks of all of them from the files themselves."""
    folder = tmp_path_factory.mktemp("served")
    options = ["--n-frames", N_FRAMES, "--frames-per-file", IN_FILE, "--seed", 4, "--output", folder]
    assert main(["simulate", "--preset", "demo", *map(str, options)]) == 0
    geometry = ["--geometry", str(folder / "detector.geom")]
    assert main(["peaks", "--frames", str(folder / "*.h5"), *geometry, "--output", str(folder / "peaks.h5")]) == 0
    return folder


@pytest.fixture
def server(served, tmp_path, monkeypatch):
    monkeypatch.setenv("SFXFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(remote_files, "PAUSES", (0, 0, 0))
    monkeypatch.chdir(tmp_path)
    with FileServer(served) as running:
        yield running


def peaks(served, frames, first, count, *more):
    options = [
        "--geometry",
        served / "detector.geom",
        "--first",
        first,
        "--count",
        count,
        "--output",
        "peaks.h5",
        *more,
    ]
    return main(["peaks", "--frames", str(frames), *map(str, options)])


def assert_peaks_of(served, first, count):
    """The peaks that were written are those of the same frames in their files."""
    with h5py.File("peaks.h5") as found, h5py.File(served / "peaks.h5") as expected:
        for name in ("nPeaks", "peakXPosRaw", "peakTotalIntensity"):
            values = expected[f"entry_1/result_1/{name}"][first : first + count]
            width = found[f"entry_1/result_1/{name}"].shape[1:]
            np.testing.assert_array_equal(
                found[f"entry_1/result_1/{name}"][()], values[(slice(None), *(slice(n) for n in width))]
            )


def write_list(server, path="frames.lst"):
    lines = [f"{server.url(f'frames_{i // IN_FILE:02d}.h5')} //{i % IN_FILE}" for i in range(N_FRAMES)]
    with open(path, "w") as handle:
        handle.write("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("threads", [1, 2])
def test_a_file_at_a_server(server, served, threads):
    """Each file is fetched once, whatever the number of processes."""
    url = server.url("frames_01.h5")
    assert peaks(served, url, 1, 3, "--threads", threads, "--n-frames", IN_FILE) == 0
    assert_peaks_of(served, IN_FILE + 1, 3)
    assert server.n_asked("frames_01.h5") == 1
    with h5py.File("peaks.h5") as handle:
        assert set(handle["frames/file"].asstr()) == {url}
        assert url in handle.attrs["provenance"]


def test_a_chunk_of_a_list_fetches_its_own_files(server, served):
    assert peaks(served, write_list(server), 6, 4, "--n-frames", N_FRAMES) == 0
    assert_peaks_of(served, 6, 4)
    # The first file of the run says what negative values of its signed integers mean.
    assert [server.n_asked(f"frames_{i:02d}.h5") for i in range(3)] == [1, 1, 1]


def test_no_file_but_its_own_where_the_geometry_says_which_values_are_bad(server, served):
    text = (served / "detector.geom").read_text()
    with open("own.geom", "w") as handle:
        handle.write(f"flag_lessthan = -1000\n{text}")
    assert peaks(served, write_list(server), 9, 2, "--geometry", "own.geom") == 0
    assert [server.n_asked(f"frames_{i:02d}.h5") for i in range(3)] == [0, 0, 1]


def test_a_job_that_has_only_its_own_files_of_a_list(served, tmp_path, monkeypatch):
    """As HTCondor sends them: the others, the run's first among them, are not there."""
    monkeypatch.chdir(tmp_path)
    with open("frames.lst", "w") as handle:
        handle.write("".join(f"frames_{i // IN_FILE:02d}.h5 //{i % IN_FILE}\n" for i in range(N_FRAMES)))
    (tmp_path / "frames_01.h5").symlink_to(served / "frames_01.h5")
    assert peaks(served, "frames.lst", IN_FILE, IN_FILE, "--n-frames", N_FRAMES) == 0
    assert_peaks_of(served, IN_FILE, IN_FILE)


def test_integration_reads_them_too(server, served, tmp_path):
    frames = write_list(server)
    common = ["--geometry", str(served / "detector.geom"), "--settings", "{}"]
    assert peaks(served, frames, 0, N_FRAMES) == 0
    cell = ["--cell", str(served / "demo.cell"), "--space-group", "P43212"]
    assert main(["indexing", "--peaks", "peaks.h5", *common, *cell, "--output", "indexed.h5"]) == 0
    for name, pattern in (("remote.h5", frames), ("local.h5", str(served / "frames_*.h5"))):
        assert main(["integration", "--indexed", "indexed.h5", "--frames", pattern, *common, "--output", name]) == 0
    with h5py.File("remote.h5") as remote, h5py.File("local.h5") as local:
        assert len(local["reflections/I"]) > 100
        np.testing.assert_array_equal(remote["reflections/I"][()], local["reflections/I"][()])
    assert [server.n_asked(f"frames_{i:02d}.h5") for i in range(3)] == [1, 1, 1]


def test_server_that_does_not_answer_fails_the_job(server, served, capsys):
    """However many failed frames are allowed: frames are not lost for that."""
    frames = write_list(server)
    server.failures = [None, 503, 503, 503, 503]
    assert peaks(served, frames, 0, N_FRAMES, "--settings", '{"max_bad_frames": 1.0}') == 1
    said = capsys.readouterr().err
    assert (
        f"{server.url('frames_01.h5')}: can't be fetched: the server answers 503 Service Unavailable (4 tries" in said
    )
    assert peaks(served, frames, 0, N_FRAMES) == 0
    assert_peaks_of(served, 0, N_FRAMES)


def test_event_that_is_not_in_the_file(server, served):
    """The frame fails, the others do not."""
    with open("frames.lst", "w") as handle:
        handle.write("".join(f"{server.url(f'frames_0{i}.h5')} //{event}\n" for i, event in ((0, 0), (1, 9), (1, 1))))
    assert peaks(served, "frames.lst", 0, 3, "--settings", '{"max_bad_frames": 0.5}') == 0
    with h5py.File("peaks.h5") as handle:
        (message,) = [text for text in handle["frames/message"].asstr() if text]
    assert "has no event //9" in message


# ---- tables of runs


def init(server, served, *data):
    options = ["--geometry", served / "detector.geom", "--cell", served / "demo.cell", "--space-group", "P43212"]
    return main(["init", *[word for url in data for word in ("--data", url)], *map(str, options)])


def rows():
    with open("config/runs.tsv") as handle:
        return [line.rstrip("\n").split("\t") for line in handle if line[0] != "#"][1:]


def test_init_writes_which_content_is_meant(server, served):
    assert init(server, served, server.url("frames_00.h5"), server.url("frames_01.h5")) == 0
    first, second = rows()
    assert first[:2] == ["frames_00", "demo"] and second[0] == "frames_01"
    size = (served / "frames_00.h5").stat().st_size
    assert first[2].startswith(f"{server.url('frames_00.h5')}#bytes={size}&etag=")
    assert first[5] == str(IN_FILE)
    # What was fetched to be counted need not be fetched again.
    assert peaks(served, first[2], 0, IN_FILE) == 0
    assert server.n_asked("frames_00.h5") == 1


def test_file_that_was_replaced(server, served, tmp_path, capsys, monkeypatch):
    """The job says so; `runs refresh` takes the new one, `runs add` knows the run."""
    folder = tmp_path / "own"
    folder.mkdir()
    for i in range(2):
        (folder / f"run{i}.h5").write_bytes((served / f"frames_0{i}.h5").read_bytes())
    server.folder = folder
    assert init(server, served, server.url("run0.h5"), server.url("run1.h5")) == 0
    before = rows()
    (folder / "run1.h5").write_bytes((served / "frames_02.h5").read_bytes())
    monkeypatch.setenv("SFXFLOW_CACHE", str(tmp_path / "cache_of_another_machine"))
    assert peaks(served, before[1][2], 0, IN_FILE) == 1
    assert "the server has another file than was meant (" in capsys.readouterr().err
    assert main(["runs", "refresh"]) == 0
    assert "1 run of config/runs.tsv changed" in capsys.readouterr().out
    after = rows()
    assert after[0] == before[0]
    assert after[1][2] != before[1][2]
    assert peaks(served, after[1][2], 0, IN_FILE) == 0
    assert main(["runs", "add", "--data", server.url("run1.h5")]) == 1
    assert f"{server.url('run1.h5')} is run run1 of config/runs.tsv already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("frames_*.h5", "which files a server has can't be looked up; name one file, or a list"),
        ("gone.h5", "the server has no such file (404 Not Found)"),
        ("truth.hkl", "truth.hkl"),
    ],
)
def test_bad_input_of_init(server, served, capsys, name, said):
    assert init(server, served, server.url(name)) == 1
    assert said in capsys.readouterr().err
    assert rows_written() is False


def rows_written():
    try:
        return bool(rows())
    except FileNotFoundError:
        return False


def test_geometry_is_needed(server, capsys):
    assert main(["init", "--data", server.url("frames_00.h5")]) == 1
    assert "has to be a file here: --geometry" in capsys.readouterr().err


def test_runs_add_without_data(server, capsys):
    assert main(["runs", "add"]) == 1
    assert "--data: name the frames" in capsys.readouterr().err
