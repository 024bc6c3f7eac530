"""What CrystFEL's programs are told, and what is believed of what they say."""

import numpy as np
import pytest

from sfxflow.errors import InputError
from sfxflow.programs.crystfel import Account, check_stream, extra_options, indexing_options, peak_options
from sfxflow.programs.crystfel_mergers import (
    CrystalNote,
    notes_of_crystals,
    partialator_crystals,
    partialator_options,
    polarisation_option,
    process_hkl_crystals,
    process_hkl_options,
)
from sfxflow.programs.running import Finished, ProgramError
from sfxflow.settings import Crystfel, Integration, Partialator, Peaks, ProcessHkl

# ---- options: each that matters is given, whatever the program's own default


def test_options_of_the_peak_search():
    chosen = peak_options(
        Peaks(min_snr=5, threshold=20, min_pix_count=3, max_pix_count=40, local_bg_radius=4, min_res=50, max_res=900, min_peaks=12),
        Crystfel(peaks_extra="--median-filter=3"),
    )  # fmt: skip
    assert chosen == [
        "--peaks=peakfinder8", "--threshold=20", "--min-snr=5", "--min-pix-count=3", "--max-pix-count=40", "--local-bg-radius=4",
        "--min-res=50", "--max-res=900", "--min-peaks=12", "--indexing=none", "--median-filter=3",
    ]  # fmt: skip


def test_no_threshold_and_no_limit_are_no_zeros():
    """indexamajig takes 800 where no threshold is given, and versions differ in what a limit of 0 means."""
    chosen = dict(option.partition("=")[::2] for option in peak_options(Peaks(use_saturated=False), Crystfel()))
    assert float(chosen["--threshold"]) < -1e6
    assert float(chosen["--max-res"]) > 1e5
    assert "--no-use-saturated" in chosen


def test_options_of_indexing_in_the_units_of_the_program():
    settings = Crystfel(
        indexing="xgandalf,asdf", multi=True, retry=False, refine=False, check_peaks=False, check_cell=False,
        cell_tolerance=0.04, angle_tolerance=2, extra="--asdf-fast --fix-divergence=0.1",
    )  # fmt: skip
    integration = Integration(
        inner_radius=4, middle_radius=5.5, outer_radius=7, d_min=1.7, push_res=0.15, method="rings"
    )
    assert indexing_options(settings, integration) == [
        "--peaks=cxi", "--no-revalidate", "--min-peaks=0", "--indexing=xgandalf,asdf", "--tolerance=4,4,4,2,2,2", "--max-indexer-threads=1",
        "--multi", "--no-retry", "--no-refine", "--no-check-peaks", "--no-check-cell", "--integration=rings-nocen-nosat-nograd",
        "--int-radius=4,5.5,7", "--push-res=1.5", "--highres=1.7", "--asdf-fast", "--fix-divergence=0.1",
    ]  # fmt: skip


def test_integration_without_a_limit():
    chosen = indexing_options(Crystfel(), Integration())
    assert "--push-res=inf" in chosen
    assert not [option for option in chosen if option.startswith(("--highres", "--multi", "--no-retry"))]


def test_options_of_the_mergers():
    integration = Integration(polarisation_fraction=0.985, polarisation_angle=-30)
    settings = Partialator(
        model="unity", iterations=2, scale=False, b_factor=False, post_refinement=False, delta_cc_half=False, min_measurements=3,
        max_adu=9000, min_res=3.5, push_res=0.1, max_rel_b=80, extra="--force-bandwidth=0.002",
    )  # fmt: skip
    assert partialator_options(settings, "4/mmm", integration, 3) == [
        "-y", "4/mmm", "--model=unity", "--iterations=2", "--no-scale", "--no-Bscale", "--no-pr", "--no-deltacchalf", "--max-rel-B=80",
        "--min-measurements=3", "--max-adu=9000", "--min-res=3.5", "--push-res=1", "--polarisation=150deg98", "-j", "3", "--no-logs",
        "--force-bandwidth=0.002",
    ]  # fmt: skip
    assert process_hkl_options(ProcessHkl(min_snr=-3, min_cc=0.1), "2/m_uab", Integration()) == [
        "-y", "2/m_uab", "--scale", "--min-snr=-3", "--min-cc=0.1", "--min-measurements=2", "--polarisation=0deg99",
    ]  # fmt: skip


@pytest.mark.parametrize(("angle", "text"), [(0, "0deg99"), (90, "90deg99"), (-90, "90deg99"), (180, "0deg99")])
def test_polarisation_in_whole_degrees(angle, text):
    assert polarisation_option(Integration(polarisation_angle=angle)) == f"--polarisation={text}"


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("-o other.stream", "-o: this option is given by sfxflow: sfxflow reads the stream"),
        ("-oother.stream", "-oother.stream: this option is given by sfxflow"),
        ("--min-snr=4 --peaks=zaef", "--peaks=zaef: this option is given by sfxflow: see crystfel.peak_search"),
        ("--indexing xds", "see crystfel.indexing"),
        ("-y 4/mmm", "the point group is that of the dataset"),
        ("--no-non-hits-in-stream", "blanks have to be in the stream"),
        ("--a 'b", "can't be split into words"),
    ],
)
def test_extra_options_that_would_take_the_ground_away(extra, words):
    with pytest.raises(InputError, match="crystfel.extra: .*") as error:
        extra_options(extra, "crystfel.extra")
    assert words in str(error.value)


def test_a_negative_number_is_no_option():
    assert extra_options("--min-snr -3 --x='a b'", "where") == ["--min-snr", "-3", "--x=a b"]


# ---- what indexamajig says

LINES = """\
List of indexing methods:
WARNING: Forcing --no-check-cell because reference unit cell parameters were not given.
HDF5-DIAG: Error detected in HDF5 (1.10.8) thread 1:
  #000: ../../../src/H5Dio.c line 179 in H5Dread(): can't read data
    major: Dataset
Couldn't read data for panel m0
36 images processed, 30 hits (83.3%), 0 indexable (0.0% of hits, 0.0% overall), 0 crystals, 2.8 images/sec.
Worker 1 was killed by signal 9
Event ID was: /tmp/x y/frames.h5 //17
Task ID was: peaksearch:pf8
Peak search failed for image /tmp/x y/frames.h5 (event //21).
Couldn't read data for panel m0
Final: 40 images processed, 33 hits (82.5%), 0 indexable (0.0% of hits, 0.0% overall), 0 crystals.
"""


def test_account_of_a_run():
    steps = []
    account = Account(steps.append)
    for line in LINES.splitlines():
        account.line(line)
    assert account.n_processed == 40
    assert steps == [36, 4]
    assert account.reasons == {
        17: "indexamajig's worker was killed by signal 9",
        21: "indexamajig: the peak search failed",
    }
    assert account.remarks == {"Couldn't read data for panel m0": 2}


def said(n_processed):
    account = Account(lambda _: None)
    account.n_processed = n_processed
    return account


DONE = Finished(0, 1.0, 1.0, ("Final: 8 images processed",))


@pytest.mark.parametrize(("begun", "ended", "processed"), [(8, 8, 8), (7, 7, 7), (8, 8, 0)])
def test_a_stream_that_holds_what_was_processed(begun, ended, processed):
    check_stream(begun, ended, said(processed), DONE, 10**12)


@pytest.mark.parametrize(("begun", "ended", "processed"), [(8, 7, 8), (0, 0, 8), (3, 3, 8), (8, 7, 7)])
def test_a_stream_that_lost_something(begun, ended, processed):
    with pytest.raises(
        ProgramError, match=f"processed {processed} frames, but {begun} begin and {ended} end in its stream"
    ) as error:
        check_stream(begun, ended, said(processed), DONE, 10**12)
    assert "disk" not in str(error.value)
    assert "| Final: 8 images processed" in str(error.value)


def test_a_full_disk_is_named():
    with pytest.raises(ProgramError, match="the disk has 12 MB free: is it full"):
        check_stream(0, 0, said(8), DONE, 12_000_000)


# ---- what the mergers say of each crystal

UNMERGED = b"""\
Crystal 0
Filename: /data/run 1.h5 //0
Flagged: no
   2    1    2     900.85       1.84
   3    1    4        inf       0.00 partiality_too_small
   4    0    2     796.42       2.52
   4    0    3     796.42       2.52 nan_esd

Crystal 1
Filename: /data/run 1.h5 //0
Flagged: yes
   2    1    2     900.85       1.84

Crystal 2
Filename: /data/run 1.h5 //3
Flagged: no

"""


def test_crystals_of_partialator():
    notes = partialator_crystals(UNMERGED.splitlines(keepends=True))
    assert [note._replace(scale=0) for note in notes] == [
        CrystalNote("/data/run 1.h5 //0", True, 0, 2),
        CrystalNote("/data/run 1.h5 //0", False, 0, 1),
        CrystalNote("/data/run 1.h5 //3", True, 0, 0),
    ]
    assert all(np.isnan(note.scale) for note in notes)
    assert partialator_crystals([]) == []


def test_crystals_of_process_hkl():
    """What process_hkl multiplies with is the inverse of the scale G of the merged file."""
    notes = process_hkl_crystals([b"/data/run 1.h5 //0 0.500000 0.9\n", b"/data/run 1.h5 //7 4.000000 -0.1\n"])
    assert notes == [
        CrystalNote("/data/run 1.h5 //0", True, 2.0, -1),
        CrystalNote("/data/run 1.h5 //7", True, 0.25, -1),
    ]


def test_notes_find_their_crystals():
    note = {name: CrystalNote(name, True, 1.0, 5) for name in "abc"}
    assert notes_of_crystals(["a", "b", "b", "c"], [note["a"], note["b"], note["c"]]) == [
        note["a"],
        note["b"],
        None,
        note["c"],
    ]
    assert notes_of_crystals(["a"], []) == [None]
    with pytest.raises(ValueError, match="b"):
        notes_of_crystals(["a", "c"], [note["a"], note["b"]])
