"""The topic of a function that is deployed to a cluster, as far as this machine reaches its broker."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from sunup.bundle.manifest import StreamSpec
from sunup.settings import EMBEDDED, STREAM_BROKER
from sunup.stream.broker import BrokerError, Trouble
from sunup.stream.open import open_admin


class Topic:
    """`declared`: None for a function without one. `settings`: of its workers; `log`: the embedded log's file.

    Brokers inside a cluster are often not to be reached from outside: then `note` says what that means, and no more.
    """

    def __init__(self, declared: StreamSpec | None, settings: Mapping[str, str], log: Path) -> None:
        speaks = declared is not None and settings.get(STREAM_BROKER, EMBEDDED) != EMBEDDED
        self._declared = declared if speaks else None
        self._settings = settings
        self._log = log
        self.note = ""

    def partitions(self) -> int | None:
        """How many the topic has: more workers than that would have nothing to do. None where nobody says."""
        if self._declared is None:
            return None
        try:
            with closing(open_admin(self._settings, self._log)) as admin:
                return len(admin.span(self._declared.input))
        except BrokerError as error:
            self._unknown(error)
            return None

    def begin(self) -> None:
        """Have the group begin at the oldest record wherever it has no position: without one KEDA sees no lag."""
        if self._declared is None or self.note:
            return
        group, topic = self._declared.group, self._declared.input
        try:
            with closing(open_admin(self._settings, self._log)) as admin:
                known = admin.positions(group, topic)
                missing = {number: first for number, (first, _) in admin.span(topic).items() if number not in known}
                if missing:
                    admin.move(group, topic, missing)
        except BrokerError as error:
            if error.trouble is not Trouble.FENCED:  # somebody reads in it: it has begun
                self._unknown(error)

    def _unknown(self, error: BrokerError) -> None:
        self.note = (
            f"The broker {self._settings[STREAM_BROKER]} cannot be asked from here ({error}), so the group begins "
            "where its first worker does, and as many workers are allowed as function.toml says."
        )
