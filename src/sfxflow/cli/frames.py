"""Gather the frame account of a run: what became of every frame. A frame that is missing or counted twice is an error."""

from sfxflow.io.files import provenance_json
from sfxflow.io.frame_account import check_complete, count_by_status, gather_frames, write_frame_account


def add_arguments(parser):
    """Arguments of `sfxflow frames`."""
    parser.add_argument("--chunks", nargs="+", required=True, metavar="FILE", help="the run's chunk files")
    parser.add_argument("--n-frames", type=int, required=True, help="number of frames that the run holds")
    parser.add_argument("--output", required=True, metavar="TSV", help="table to write, one line a frame")


def run(args):
    """Write the account and print the sums."""
    frames, chunk_of_frame = gather_frames(args.chunks)
    check_complete(frames["frame"], args.n_frames, chunk_of_frame, args.chunks)
    write_frame_account(args.output, frames, provenance_json(inputs=args.chunks))
    counts = count_by_status(frames["status"])
    names = {"failed": "failed", "blank": "blank", "hit": "hit but not indexed", "indexed": "indexed"}
    parts = " + ".join(f"{count} {names[status.name]}" for status, count in counts.items())
    print(f"{args.n_frames} frames = {parts}")
