"""On-demand feature views of values that come with the rows: see kinds.given."""

from collections.abc import Sequence
from pathlib import Path

from sunup.lookup.derive.lookup import DerivedLookup
from sunup.lookup.derive.view import load_makers
from sunup.lookup.kinds.ages import AgedLookup
from sunup.lookup.kinds.given import GivenLookup
from sunup.lookup.plan import ReadPlan
from sunup.lookup.store import Store
from sunup.types import Field


def open_given(
    plan: ReadPlan, store: Store, request: Sequence[Field], code: Path, *, aged: bool = False
) -> DerivedLookup:
    """As open_derived, of a plan with aggregated views."""
    return (AgedGivenDerivedLookup if aged else GivenDerivedLookup)(plan, store, request, load_makers(code))


class GivenDerivedLookup(DerivedLookup, GivenLookup):
    """A DerivedLookup whose functions see what was given as if it had been read."""


class AgedGivenDerivedLookup(DerivedLookup, GivenLookup, AgedLookup):
    """The same, with the ages of the views."""
