"""What of a plan is written, and how its values become bytes."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sunup.lookup.keys import key_head
from sunup.lookup.plan import ReadPlan
from sunup.lookup.writing.encode import Encoder, Teller, encoder, teller

OWN: Final = "_sunup"  # how our own entries beside Feast's begin: no name that Feast or a person gives a feature
VERSION_BYTES: Final = 16
NOBODY: Final = b"sunup"  # where an entity key stands, of no entity: those begin with a count of few join keys


class Target(NamedTuple):
    """One aggregated view. `head`: what all of its entity keys begin with, and no other view's of other join keys."""

    stored: str
    features: tuple[str, ...]
    encoders: tuple[Encoder, ...]
    tellers: tuple[Teller, ...]
    head: bytes


def targets(plan: ReadPlan) -> Mapping[str, Target]:
    """The aggregated views of a plan by name. Raises UsageError for a feature no aggregation gives."""
    return {
        view.name: Target(
            view.stored,
            tuple(feature.name for feature in view.features),
            tuple(encoder(feature.value_type) for feature in view.features),
            tuple(teller(feature.value_type) for feature in view.features),
            key_head(entity.join_keys),
        )
        for entity in plan.entities
        for view in entity.views
        if view.aggregated is not None
    }


def stored_names(views: Mapping[str, Target]) -> Sequence[str]:
    """What the views are called in the store, each once, in an order that does not change."""
    return sorted({target.stored for target in views.values()})
