"""Lattices found in peaks that have none: how significant chance fits are, and how many are accepted.

Two kinds of peak lists: anywhere on the detector, and the peaks of simulated frames, each turned about the beam by a random angle, which
keeps their distribution over resolution. `docs/indexing.md` quotes what this prints.
"""

import argparse

import numpy as np
from peak_lists import peak_list
from wrong_cells import target_cells

from sfxflow.geometry import panel_arrays, panel_of
from sfxflow.indexing import frame
from sfxflow.indexing.known_cell import index_lattice
from sfxflow.settings import Indexing
from sfxflow.simulate.presets import preset
from sfxflow.units import wavelength


def anywhere(experiment, index, n_peaks):
    """Peaks at random places of the detector."""
    rng = np.random.default_rng([index, n_peaks])
    arrays = panel_arrays(experiment.detector)
    rows, columns = experiment.detector.shape
    fs, ss = rng.random(2 * n_peaks) * columns, rng.random(2 * n_peaks) * rows
    panel = panel_of(arrays.bounds, fs, ss)
    on = np.flatnonzero(panel >= 0)[:n_peaks]
    length, clen = wavelength(experiment.photon_energy), experiment.detector.clen
    intensity = rng.exponential(size=len(on))
    return frame.frame_peaks(arrays, panel[on], fs[on], ss[on], intensity, length, clen), length


def turned(experiment, index, n_peaks):
    """Peaks of a frame, each turned about the beam on its own."""
    peaks, _, length, _ = peak_list(experiment, index, n_peaks, 0)
    rng = np.random.default_rng([index, n_peaks, 1])
    angle = 2 * np.pi * rng.random(len(peaks))
    along, across = np.cos(angle), np.sin(angle)
    x, y, z = peaks.q.T
    peaks.q[:] = np.stack([along * x - across * y, across * x + along * y, z], axis=1)
    return peaks, length


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=("lysozyme", "monoclinic", "large"))
    parser.add_argument("--n-lists", type=int, default=300)
    args = parser.parse_args()
    settings = Indexing()
    print("preset       peaks  kind      log10 P of the best fit at 0 1 50 %   below -14  accepted")
    for name in args.presets:
        experiment = preset(name, seed=5, blank_fraction=0.0, multi_fraction=0.0)
        target = frame.prepare_target(target_cells(experiment, name)["right"])
        to_panel = frame.panel_inverses(panel_arrays(experiment.detector), experiment.detector.clen)
        for n_peaks in (10, 40, 150):
            for kind, make in (("anywhere", anywhere), ("turned", turned)):
                chances, accepted = [], 0
                for i in range(args.n_lists):
                    peaks, length = make(experiment, i, n_peaks)
                    if len(peaks) < 8:
                        continue
                    weight = frame.strength_weights(peaks.intensity)
                    chances.append(index_lattice(peaks.q, weight, target.lattice, settings.max_log10_p)[1])
                    # Turned peaks have no place on the detector any more: only the search is tried on them.
                    if kind == "anywhere" and chances[-1] < settings.max_log10_p:
                        found, _ = frame.index_frame(peaks, target, to_panel, length, experiment.pixel_size, settings)
                        accepted += bool(found)
                spread = " ".join(f"{x:6.1f}" for x in np.percentile(chances, (0, 1, 50)))
                below = int(np.count_nonzero(np.array(chances) < settings.max_log10_p))
                said = f"{accepted:8}" if kind == "anywhere" else " " * 8
                print(f"{name:12} {n_peaks:4}  {kind:9} {spread:36} {below:4} of {len(chances):4} {said}", flush=True)


if __name__ == "__main__":
    main()
