"""How much a proof may hold at a time; neither numpy nor torch is loaded for it."""

from __future__ import annotations

import dataclasses

from zoo.memory import MEMORY

LEAST = 10**7


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProofConfig:
    """How the proof is run; nothing of it gets into the file."""

    memory: int = dataclasses.field(
        default=MEMORY,
        metadata={"help": "memory that a batch may take", "low": LEAST, "bytes": True},
    )
