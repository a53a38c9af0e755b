"""Training: the only loop there is, and what it is made of.

loop         `fit`, which everything trains through
batches      what a step is given: sliced, augmented, mixed
optimizing   update rules, learning rates, stages, gradients
averaging    the moving average of the weights
probing      whether features improve: a small classifier on held-out examples
watching     the figure that is watched: best epoch, patience, a loss that is no number
checkpoints  what an exact resume needs, on disk
stopping     Ctrl-C between two steps
trying       whether a module trains at all: one step of a copy, before data is loaded
evaluation   losses and outputs in evaluation mode
places       one process, or several that exchange gradients
launching    which of the two it is: the processes that were asked for, joined
processes    how they are started and meet, and what is told where one fails
devices      device, threads, arithmetic
"""

from zoo.training.checkpoints import Checkpoints
from zoo.training.devices import cpu_threads, resolve_device, seed_everything
from zoo.training.evaluation import evaluate_losses, outputs
from zoo.training.launching import placed, processes_of
from zoo.training.loop import Epoch, fit, kept_of
from zoo.training.optimizing import check_training
from zoo.training.places import Place, unshard, whole
from zoo.training.probing import Probe
from zoo.training.stopping import holding, listening
from zoo.training.trying import Tried, try_step
from zoo.training.watching import Goal

__all__ = [
    "Checkpoints",
    "Epoch",
    "Goal",
    "Place",
    "Probe",
    "Tried",
    "check_training",
    "cpu_threads",
    "evaluate_losses",
    "fit",
    "holding",
    "kept_of",
    "listening",
    "outputs",
    "placed",
    "processes_of",
    "resolve_device",
    "seed_everything",
    "try_step",
    "unshard",
    "whole",
]
