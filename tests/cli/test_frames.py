import h5py

from sfxflow.cli import main
from sfxflow.io.frame_account import read_frame_account
from sfxflow.io.table import ChunkWriter
from sfxflow.reflections import FRAMES, Status


def write_chunk(path, first, statuses):
    rows = {column.name: ["" if column.dtype == "str" else 0] * len(statuses) for column in FRAMES}
    rows |= {"frame": [first + i for i in range(len(statuses))], "status": [int(status) for status in statuses]}
    with h5py.File(path, "w") as handle:
        ChunkWriter(handle, "{}", ["frames"]).append("frames", rows)
    return str(path)


def test_account_of_a_run(tmp_path, capsys):
    chunks = [
        write_chunk(tmp_path / "0000.h5", 0, [Status.blank, Status.indexed]),
        write_chunk(tmp_path / "0001.h5", 2, [Status.failed, Status.hit, Status.indexed]),
    ]
    output = tmp_path / "out/frames.tsv"
    assert main(["frames", "--chunks", *chunks, "--n-frames", "5", "--output", str(output)]) == 0
    assert "5 frames = 1 failed + 1 blank + 1 hit but not indexed + 2 indexed" in capsys.readouterr().out
    frames, provenance = read_frame_account(output)
    assert frames["frame"] == [0, 1, 2, 3, 4]
    assert "0001.h5" in provenance


def test_a_missing_frame_is_an_error_and_nothing_is_written(tmp_path, capsys):
    chunk = write_chunk(tmp_path / "0000.h5", 0, [Status.blank, Status.indexed])
    output = tmp_path / "frames.tsv"
    assert main(["frames", "--chunks", chunk, "--n-frames", "3", "--output", str(output)]) == 1
    assert "1 of the run's 3 frames are in none of the 1 chunk files" in capsys.readouterr().err
    assert not output.exists()


def test_a_file_that_is_no_chunk(tmp_path, capsys):
    path = tmp_path / "0000.h5"
    path.write_text("half a file")
    assert main(["frames", "--chunks", str(path), "--n-frames", "3", "--output", str(tmp_path / "frames.tsv")]) == 1
    assert "0000.h5: can't be opened as HDF5" in capsys.readouterr().err
