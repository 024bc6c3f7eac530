"""Lists of chunk files in short form."""

from hypothesis import given
from hypothesis import strategies as st

from sfxflow.cli.chunk_lists import expanded

RUN = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", fullmatch=True)


def test_chunks_and_runs():
    assert expanded(["--chunks", "results/<a:2,b:1>.peaks.h5", "results/<a,b>/frames.tsv"]) == [
        *("--chunks", "results/a/0000.peaks.h5", "results/a/0001.peaks.h5", "results/b/0000.peaks.h5"),
        *("results/a/frames.tsv", "results/b/frames.tsv"),
    ]


@given(st.dictionaries(RUN, st.integers(1, 12), min_size=1))
def test_every_chunk_once_in_order(runs):
    short = f"r/<{','.join(f'{run}:{n}' for run, n in runs.items())}>.h5"
    assert expanded([short]) == [f"r/{run}/{k:04d}.h5" for run, n in runs.items() for k in range(n)]


def test_what_is_no_list_stays():
    arguments = ['{"title": "a <b:2> c"}', "--title", "<", "a<b", "dir/<a/b:2>", ""]
    assert expanded(arguments) == arguments


def test_twenty_thousand_chunks_fit_into_a_command():
    """A shell takes no argument over 128 KiB."""
    short = f"results/builtin/runs/<{','.join(f'run{number:04d}:10' for number in range(2000))}>.integrated.h5"
    assert len(expanded([short])) == 20000
    assert len(short) < 2**17 / 4
