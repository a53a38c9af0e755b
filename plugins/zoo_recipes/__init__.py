"""Complete pipelines."""

from __future__ import annotations

from zoo.api import RecipeSpec, hookimpl
from zoo_recipes.every_label import EVERY_LABEL
from zoo_recipes.few_labels import FEW_LABELS
from zoo_recipes.tutorial import TUTORIAL


@hookimpl
def zoo_recipes() -> list[RecipeSpec]:
    return [*TUTORIAL, *EVERY_LABEL, *FEW_LABELS]
