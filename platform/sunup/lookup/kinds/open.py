"""From a read plan and a URL to the lookup that a function needs."""

from collections.abc import Sequence
from pathlib import Path

from sunup.lookup.cache import cached
from sunup.lookup.circuit import GuardedStore
from sunup.lookup.join import Lookup
from sunup.lookup.kinds.ages import AgedLookup
from sunup.lookup.plan import ReadPlan
from sunup.lookup.stores.open import open_store
from sunup.types import Field


def open_lookup(
    plan: ReadPlan, url: str, request: Sequence[Field], code: Path, *, aged: bool = False, given: bool = False
) -> Lookup:
    """The lookup of a bundle with the file `code`, features.py. Touches nothing but that: await its `open()`.

    `aged`: it says the age of each row's views; `given`: the values of aggregated views come with the rows. Raises
    UsageError for a URL that cannot be read, BundleDamaged for a `code` that cannot be run.
    """
    given = given and any(view.aggregated is not None for view in plan.views)
    read = plan
    if given:
        from sunup.lookup.kinds.given import AgedGivenLookup, GivenLookup, unaggregated  # for those that aggregate

        read = unaggregated(plan)
    store = open_store(url if read.entities else "memory:", read)  # on-demand and given views may need none
    store = cached(GuardedStore(store, read), read)
    if plan.on_demand and given:
        from sunup.lookup.derive.given import open_given  # for those that aggregate

        return open_given(plan, store, request, code, aged=aged)
    if plan.on_demand:
        from sunup.lookup.derive.lookup import open_derived  # only functions with on-demand views pay for it

        return open_derived(plan, store, request, code, aged=aged)
    if given:
        return (AgedGivenLookup if aged else GivenLookup)(plan, store, request)
    return (AgedLookup if aged else Lookup)(plan, store, request)
