"""A map of features in two dimensions."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

LEAST = 20
"""Examples from which neighbourhoods mean anything."""
STEPS = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Map:
    """Points, N x 2, and how they were found."""

    points: Array
    method: str


def embed(features: Array) -> Map:
    """Lay features, N x D, out in the plane, the same each time.

    t-SNE (van der Maaten and Hinton, JMLR 9, 2008), begun at the principal components; of few
    examples, the components alone.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    features = np.nan_to_num(features.astype(np.float64))
    count, width = features.shape
    if np.ptp(features, axis=0).max() == 0:  # one and the same point
        return Map(points=np.zeros((count, 2)), method="all features are equal")
    # Sums over several threads differ in the last bits from run to run.
    with threadpool_limits(limits=1):
        most = min(50, count, width)
        reduced = PCA(most, svd_solver="full").fit_transform(features)
        if count < LEAST:
            flat = np.zeros((count, 2))
            flat[:, : min(2, most)] = reduced[:, :2]
            return Map(points=flat, method="PCA")
        perplexity = min(30.0, (count - 1) / 3)
        init = reduced[:, :2] / max(1e-12, float(np.std(reduced[:, 0]))) * 1e-4
        if most < 2:
            init = np.c_[init, np.zeros(count)]
        found = TSNE(perplexity=perplexity, init=init, max_iter=STEPS, random_state=0)
        points = found.fit_transform(reduced)
    return Map(points=points, method=f"t-SNE, perplexity {perplexity:g}")
