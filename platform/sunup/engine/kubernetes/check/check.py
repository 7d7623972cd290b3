"""Everything that is wrong with objects, said at once before any of them is applied."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sunup.bundle.declare.lines import closest
from sunup.engine.kubernetes.check.cluster import on_cluster
from sunup.engine.kubernetes.check.core import ACCOUNT, DEPLOYMENT, SECRET
from sunup.engine.kubernetes.check.facts import ClusterFacts
from sunup.engine.kubernetes.check.findings import sentences, title
from sunup.engine.kubernetes.check.keda import AUTHENTICATION, SCALED, scaled_problems
from sunup.engine.kubernetes.check.knative import SERVICE, service_problems
from sunup.engine.kubernetes.check.schema import Problem, Table, walk
from sunup.engine.kubernetes.check.together import between
from sunup.engine.kubernetes.render.target import Object
from sunup.errors import ObjectsRefused

KINDS: Final[dict[str, Table]] = {
    "ServiceAccount": ACCOUNT,
    "Secret": SECRET,
    "Service": SERVICE,
    "Deployment": DEPLOYMENT,
    "TriggerAuthentication": AUTHENTICATION,
    "ScaledObject": SCALED,
}
_INSIDE: Final[dict[str, Callable[[Object], Iterator[Problem]]]] = {
    "Service": service_problems,
    "ScaledObject": scaled_problems,
}


def check(objects: Sequence[Object], facts: ClusterFacts | None = None) -> None:
    """Raises ObjectsRefused with a sentence for everything that is wrong: its object, its path and what to do.

    `facts`: what the cluster allows; None where there is none to ask, and only the objects themselves are judged.
    """
    if found := findings(objects, facts):
        raise ObjectsRefused(found)


def findings(objects: Sequence[Object], facts: ClusterFacts | None = None) -> list[str]:
    """The sentences `check` would raise with, in the order of the objects; those about the cluster last."""
    found: list[str] = []
    for thing in objects:
        kind = str(thing.get("kind"))
        if kind not in KINDS:
            near = closest(kind, KINDS) or f" Known are {', '.join(KINDS)}."
            found.append(f"{title(thing)}: no {kind} is made of a function.{near}")
            continue
        problems = [*walk(KINDS[kind], thing), *_INSIDE.get(kind, _nothing)(thing)]
        found += sentences(thing, problems)
    if objects:
        found += between(objects, None if facts is None else facts.secrets)
    if facts is not None:
        found += on_cluster(objects, facts)
    return list(dict.fromkeys(found))


def _nothing(_: Object) -> Iterator[Problem]:
    return iter(())
