"""The steps of a pipeline, each made once: whoever asks for an equal one again is given the run."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from zoo.api import (
    Component,
    FinetuneConfig,
    ImageInput,
    PretrainConfig,
    SelfTrainConfig,
    TrainConfig,
)
from zoo.digests import Digested
from zoo.errors import recurs
from zoo.pipeline.assembly import build_dataset, choose
from zoo.pipeline.finetuning import finetune
from zoo.pipeline.pretraining import pretrain
from zoo.pipeline.reuse import Earlier, digest, key_of
from zoo.pipeline.sameness import made_of, splits_of
from zoo.pipeline.self_training import self_train
from zoo.pipeline.workspace import Workspace
from zoo.runs import Run

AGAIN = "Type the same command again"


@contextlib.contextmanager
def going_on() -> Iterator[None]:
    """Say, where a pipeline of several runs stops before its end, how it goes on, if it can."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if not recurs(error) and AGAIN not in str(error):
            error.add_note(f"{AGAIN} to go on from here.")
        raise


class Steps:
    """Makes runs, or finds those that were made of the same options before.

    `by` stands in the record of each run that is made, as the recipe it belongs to. With `fresh`
    the runs that were there before are passed over; `reused` counts those that were taken.
    """

    def __init__(self, workspace: Workspace, by: str, *, fresh: bool = False) -> None:
        self.workspace, self.by = workspace, by
        self._earlier = Earlier(workspace, fresh=fresh)
        self._splits: dict[str, Mapping[str, Digested]] = {}

    @property
    def reused(self) -> int:
        return self._earlier.reused

    def _of_same_data(self, dataset: Component) -> Callable[[Run], bool]:
        """Return what says of a run whether it was made of the data set as it is now."""
        part = choose(self.workspace, "dataset", dataset)
        told = digest(dataclasses.asdict(part.record))

        def fits(run: Run) -> bool:
            if run.record.data is None:
                return True
            if told not in self._splits:  # read once, where there is a run to be held against
                self._splits[told] = splits_of(part, build_dataset(self.workspace, part))
            return made_of(run, self._splits[told])

        return fits

    def pretrained(
        self,
        backbone: Component,
        dataset: Component,
        objective: Component,
        training: TrainConfig,
        config: PretrainConfig,
        teachers: Mapping[str, str] = MappingProxyType({}),
    ) -> Run:
        """Pretrain; `teachers` are the SHA-256 of those that the objective's options name."""
        parts = {"dataset": dataset, "backbone": backbone, "objective": objective}
        key = key_of(self.workspace, parts, training, teachers=teachers)
        make = functools.partial(
            pretrain,
            backbone,
            dataset=dataset,
            objective=objective,
            training=training,
            pretrain=config,
            workspace=self.workspace,
            recipe={"name": self.by, "key": key},
        )
        return self._earlier.take_or_make(key, make, self._of_same_data(dataset))

    def finetuned(
        self,
        parts: dict[str, Component],
        training: TrainConfig,
        config: FinetuneConfig,
        parent: Run | None,
        input: ImageInput | None = None,
    ) -> Run:
        """Finetune `parent`, or from scratch the backbone of `parts`, built for `input`."""
        key = key_of(self.workspace, parts, training, config, parent, input)
        make = functools.partial(
            finetune,
            parent,
            backbone=None if parent else parts["backbone"],
            dataset=parts["dataset"],
            head=parts["head"],
            training=training,
            finetune=config,
            input=input,
            workspace=self.workspace,
            recipe={"name": self.by, "key": key},
        )
        return self._earlier.take_or_make(key, make, self._of_same_data(parts["dataset"]))

    def self_trained(
        self,
        parts: dict[str, Component],
        training: TrainConfig,
        config: FinetuneConfig,
        teacher: Run,
        taught: SelfTrainConfig,
    ) -> Run:
        """Let a finished finetuning go on; `config` was the finetuning's."""
        key = key_of(self.workspace, parts, training, config, teacher, self_train=taught)
        make = functools.partial(
            self_train,
            teacher,
            training=training,
            self_train=taught,
            workspace=self.workspace,
            recipe={"name": self.by, "key": key},
        )
        return self._earlier.take_or_make(key, make, self._of_same_data(parts["dataset"]))
