"""Points of a Gaussian mixture."""

import numpy as np


def mixture(n: int, dim: int, components: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 points of a Gaussian mixture with unequal weights, and their components."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(components, dim)) * spread
    component = rng.choice(components, n, p=rng.dirichlet(np.full(components, 2.0)))
    return (centres[component] + rng.normal(size=(n, dim))).astype(np.float32), component
