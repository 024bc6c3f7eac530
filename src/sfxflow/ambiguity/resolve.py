"""From columns of observations to a mode for each crystal."""

from dataclasses import dataclass, replace

import numpy as np

from sfxflow.ambiguity.likelihood import compared, wilson
from sfxflow.ambiguity.spectral import embedding, modes_of, standardised

#: What the first answer is trusted.
_TRUST = 0.7
#: Relative standard deviation of the probabilities where nothing is known.
_JITTER = 0.02
#: Starts of that kind; one is enough where there are so many observations that each leads to the same end.
_STARTS, _FEW_STARTS, _MANY_OBSERVATIONS = 3, 1, 500_000
#: The median margin of data without any consistent mode scatters relatively by about 1.3 / sqrt(crystals) (docs/ambiguity.md): it has to be
#: exceeded by three times that, and 1 at least.
_CHANCE_SCATTER = 4.0
#: Such data that are made for comparison: more of small datasets, where they scatter; they need not come to rest.
_EXCHANGES, _FEW_CRYSTALS, _CHANCE_SWEEPS = 4, 300, 15


@dataclass(frozen=True)
class Resolved:
    """Modes of the crystals.

    Attributes
    ----------
    mode : ndarray of int64, shape (n_crystals,)
        Number of the operator that each crystal's indices have to be multiplied with.
    margin : ndarray of float64, shape (n_crystals,)
        Log likelihood of the mode above that of the second best; 0 where a crystal has no observations.
    probability : ndarray, shape (n_crystals, n_modes)
    median_margin : float
        Of the crystals with observations.
    chance_margin : float
        The same for the same observations with their modes exchanged at random: what is to be expected if nothing can be told.
    """

    mode: np.ndarray
    margin: np.ndarray
    probability: np.ndarray
    median_margin: float
    chance_margin: float

    @property
    def told_apart(self):
        """Whether the margins are clearly above those of chance."""
        n = max(np.count_nonzero(self.margin > 0), 1)
        return self.median_margin > max(1.0, (1.0 + _CHANCE_SCATTER / np.sqrt(n)) * self.chance_margin)

    @property
    def clearness(self):
        """The median margin over that of chance."""
        return self.median_margin / max(self.chance_margin, 1e-3)


def resolve(observations, knowledge=None, start=None, seed=0):
    """Find the modes in which the crystals agree best.

    Parameters
    ----------
    observations : sfxflow.ambiguity.observations.Observations
    knowledge : sfxflow.ambiguity.likelihood.Knowledge, optional
        Of the intensities; Wilson's distribution by default.
    start : ndarray of int, shape (n_crystals,), optional
        Modes to begin with, and nothing else.
    seed : int
        The result is the same for the same seed.

    Returns
    -------
    Resolved
    """
    knowledge = knowledge or wilson(observations)
    probability, log_likelihood = _best(observations, knowledge, start, seed)
    mode = np.argmax(probability, axis=1)
    margin = margins(log_likelihood, mode)
    there = np.diff(observations.offsets) > 0
    n_exchanges = _EXCHANGES if np.count_nonzero(there) < _FEW_CRYSTALS else 1
    chance = [_chance_margin(observations, there, seed + i) for i in range(n_exchanges)]
    return Resolved(mode, margin, probability, _median(margin[there]), float(np.mean(chance)))


def _chance_margin(observations, there, seed):
    shuffled = exchanged(observations, seed)
    probability = _uncertain(shuffled, np.random.default_rng(seed))
    _, log_likelihood = compared(shuffled, probability, wilson(shuffled), sweeps=_CHANCE_SWEEPS, soft=())
    return _median(margins(log_likelihood, np.argmax(log_likelihood, axis=1))[there])


def _median(values):
    return float(np.median(values)) if len(values) else 0.0


def _many(observations):
    return len(observations.row) > _MANY_OBSERVATIONS


def margins(log_likelihood, mode):
    """Log likelihood of the chosen modes above the best of the others, not below 0: ndarray of shape (n_crystals,)."""
    rows = np.arange(len(mode))
    chosen = log_likelihood[rows, mode]
    others = log_likelihood.copy()
    others[rows, mode] = -np.inf
    return (
        np.maximum(chosen - others.max(axis=1, initial=-np.inf), 0.0) if log_likelihood.shape[1] > 1 else chosen * 0.0
    )


def exchanged(observations, seed=0):
    """The same observations, each in modes that are exchanged at random: no crystal has a consistent mode any more."""
    rng = np.random.default_rng(seed)
    order = np.argsort(rng.random(observations.number.shape), axis=1)
    return replace(observations, number=np.ascontiguousarray(np.take_along_axis(observations.number, order, axis=1)))


def trusted(mode, n_modes, trust=_TRUST):
    """Probabilities that say: this mode, most probably. ndarray of shape (n_crystals, n_modes)."""
    probability = np.full((len(mode), n_modes), (1.0 - trust) / max(n_modes - 1, 1))
    probability[np.arange(len(mode)), mode] = trust
    return probability


def _uncertain(observations, rng):
    """Probabilities that are all nearly the same."""
    jitter = np.abs(rng.normal(1.0, _JITTER, (observations.n_crystals, observations.number.shape[1])))
    return jitter / jitter.sum(axis=1, keepdims=True)


def _best(observations, knowledge, start, seed):
    """Probabilities and log likelihoods of the best of several starts."""
    n_modes = observations.number.shape[1]
    if start is not None:
        return compared(observations, trusted(start, n_modes), knowledge)
    spectral = modes_of(embedding(observations, standardised(observations), seed))
    results = [compared(observations, trusted(spectral, n_modes), knowledge)]
    rng = np.random.default_rng(seed)
    for _ in range(_FEW_STARTS if _many(observations) else _STARTS):
        results.append(compared(observations, _uncertain(observations, rng), knowledge, soft=()))
    return max(results, key=lambda result: _objective(result[1]))


def _objective(log_likelihood):
    highest = log_likelihood.max(axis=1, keepdims=True)
    return float(np.sum(highest[:, 0] + np.log(np.exp(log_likelihood - highest).mean(axis=1))))
