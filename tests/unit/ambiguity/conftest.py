"""Simulated crystals that several tests share."""

import pytest
from ambiguous_crystals import simulate

from sfxflow.ambiguity.observations import observations_of
from sfxflow.ambiguity.operators import ambiguity_operators


@pytest.fixture(scope="session")
def prepared():
    """A function: simulated crystals, their operators and columns of observations."""
    made = {}

    def make(case, n_crystals, n_observations, **settings):
        key = (case, n_crystals, n_observations, *sorted(settings.items()))
        if key not in made:
            simulated = simulate(case, n_crystals, n_observations, **settings)
            operators = ambiguity_operators(simulated.cell, simulated.group)
            columns = observations_of(
                simulated.crystals, simulated.reflections, simulated.cell, simulated.group, operators
            )
            made[key] = simulated, operators, columns
        return made[key]

    return make
