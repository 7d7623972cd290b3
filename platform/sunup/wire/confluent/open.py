"""Whether a stream's records need a schema registry, and the one that the settings of its revision name."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from sunup.clock import SystemClock
from sunup.settings import SCHEMA_REGISTRY
from sunup.types import Field

if TYPE_CHECKING:
    from sunup.wire.confluent.schemas import Schemas


def open_schemas(settings: Mapping[str, str], content: str, request: Sequence[Field]) -> "Schemas | None":
    """None where records of this `content` have none, or no registry is named. Connects to nothing."""
    address = settings.get(SCHEMA_REGISTRY)
    if address is None or content not in ("auto", "confluent"):
        return None
    from sunup.wire.confluent.registry import Address, Registry  # http and ssl, which others do without
    from sunup.wire.confluent.schemas import Schemas  # the same

    return Schemas(Registry(msgspec.json.decode(address, type=Address)), request, SystemClock())
