"""From what was asked for to a place: several processes are joined by lightning-fabric.

It is imported only here, and only where several processes are asked for.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from zoo.api import TrainConfig
from zoo.errors import BadOption, UsageError
from zoo.machine import cores
from zoo.progress import Silent, reporting
from zoo.training.places import FabricPlace, Place, entered
from zoo.training.processes import Team

_team: Team | None = None
"""The processes of this interpreter: its trainings have the same, one after the other."""


def processes_of(config: TrainConfig) -> int:
    """Count the processes that training by a config takes: under torchrun, as many as it says."""
    return _outside() or config.devices


def _outside() -> int:
    """Count torchrun's processes; 0 where it started none, or this one alone."""
    world = int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1
    return world if world > 1 else 0


@contextlib.contextmanager
def placed(config: TrainConfig, device: torch.device) -> Iterator[Place]:
    """Start the processes that a config asks for; yields this one's place.

    Under torchrun the processes are there, and are as many as it says. Where one of them fails, the
    main one raises its error, and the others end in silence. Raises `UsageError`.
    """
    global _team
    world = processes_of(config)
    if _team is not None and world != _team.world:
        raise BadOption(
            f"devices: {world}, where the training before had {_team.world}. All trainings of one"
            " command have the same number of processes."
        )
    if world == 1:
        place = Place(device)
        with entered(place):
            yield place
        return
    most = max(16, 2 * cores())
    if device.type == "cpu" and not _outside() and world > most:
        raise BadOption(f"devices: {world} processes are too many here. Allowed: up to {most}.")
    team = _team or _team_of(world)
    with team.ending_as_one():
        place = FabricPlace(_joined(config, device, team), team)
        _team = team
        with entered(place), contextlib.nullcontext() if place.main else reporting(Silent()):
            yield place
            place.wait()


def _team_of(world: int) -> Team:
    if not _outside():
        return Team.of_this_command(world)
    return Team(world, int(os.environ["RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))


def _joined(config: TrainConfig, device: torch.device, team: Team) -> Any:
    """Return a fabric of all processes, which have met."""
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment
        from lightning_fabric.utilities.exceptions import MisconfigurationException
    except ImportError:
        raise UsageError(
            "Several processes need lightning-fabric. Type: pip install 'plugzoo[fabric]'"
        ) from None

    class Started(LightningEnvironment):
        """Processes that are there: a batch system's variables tell of its own tasks alone."""

        creates_processes_externally = True
        main_address, main_port = "127.0.0.1", team.port

        def local_rank(self) -> int:
            return team.rank

        def node_rank(self) -> int:
            return 0

    try:
        fabric = Fabric(
            accelerator=device.type,
            devices=team.here,
            num_nodes=team.world // team.here,
            strategy=_sharded(team.world) if config.strategy == "fsdp" else "ddp",
            plugins=[Started()] if team.ours else None,
        )
    except (MisconfigurationException, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"{team.here} devices of the kind '{device.type}' cannot be used: {reason}"
        ) from None
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    team.meet()
    fabric.launch()
    return fabric


def _sharded(world: int) -> Any:
    """Return Fabric's strategy in which each process keeps a shard of every weight and moment."""
    from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
    from torch.distributed.fsdp import fully_shard

    def shard(module: nn.Module, mesh: Any) -> nn.Module:
        # As one: weights may be shared between an encoder and its decoder. Gathered weights do not
        # outlive a forward pass, so that the average may take their place between two.
        fully_shard(module, mesh=mesh["data_parallel"], reshard_after_forward=True)
        return module

    return ModelParallelStrategy(shard, data_parallel_size=world, tensor_parallel_size=1)
