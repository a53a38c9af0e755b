"""Networks that an exporter may get wrong: small encoders of 8×8 pictures, by what is odd."""

from __future__ import annotations

from odd import (
    arithmetic,
    attention,
    batch,
    buffers,
    changes,
    convolutions,
    dynamics,
    families,
    flow,
    functions,
    heads,
    integers,
    memories,
    norms,
    other_types,
    patterns,
    ranks,
    recurrent,
    resampling,
    routes,
    sets,
    shapes,
    transformers,
    weights,
    wrappers,
)
from odd.network import Network, networks_of

NETWORKS: list[Network] = networks_of(
    arithmetic,
    attention,
    batch,
    buffers,
    changes,
    convolutions,
    dynamics,
    families,
    flow,
    functions,
    heads,
    integers,
    memories,
    norms,
    other_types,
    patterns,
    ranks,
    recurrent,
    resampling,
    routes,
    sets,
    shapes,
    transformers,
    weights,
    wrappers,
)


def by_name(name: str) -> Network:
    return next(each for each in NETWORKS if each.name == name)
