"""The recorder as its engine sees it: a process that is there while there is something in the spool.

Looking is one question to a folder that is empty in every engine without a served-feature log, asked at every tick
while anything runs. The recorder is started with `python -m`, never imported: it is the one process that has pyarrow.
"""

import asyncio
import contextlib
import os
import sys
from importlib.util import find_spec
from typing import Final

from sunup.engine.local.services import NOBODY_ELSE, Service
from sunup.limits import SERVED_END_SECONDS_MAX
from sunup.link.channel import Message
from sunup.link.peer import Peer
from sunup.settings import Project

MODULE: Final = "sunup.serve.recording.recorder"


class Recording:
    """Of one engine. `release`: see Service."""

    def __init__(self, project: Project, release: str) -> None:
        self._project = project
        self._release = release
        self._service: Service | None = None
        self._before: Service | None = None  # the last one that was done, and may be ending still
        self._told = False
        self._stopping = False

    def __repr__(self) -> str:
        return f"Recording({self._service})"

    @property
    def peer(self) -> Peer | None:
        """The recorder, if it is up."""
        return None if self._service is None else self._service.peer

    def look(self) -> None:
        """Start the recorder if there is something for it to do."""
        if self._service is None and not self._stopping and self._spooled():
            self._start()

    def digests(self) -> set[str]:
        """The bundles of rows in the spool: they say where these are to be written."""
        return {parts[2] for name in self._spooled() if len(parts := name.split(".")) > 3}

    async def finish(self) -> None:
        """Every worker has ended: have all they spooled written, and the recorder end. What it does not manage in time
        stays spooled for the next engine."""
        self.look()
        self._stopping = True
        service = self._service
        if service is not None:
            with contextlib.suppress(TimeoutError):
                await service.wait_up(SERVED_END_SECONDS_MAX)
            if service.peer is not None:
                service.peer.channel.send({"op": "finish"})
            service.stop()
        for one in (self._before, service):
            if one is not None:
                await self._end(one)

    @staticmethod
    async def _end(service: Service) -> None:
        try:
            await asyncio.wait_for(service.ended.wait(), SERVED_END_SECONDS_MAX)
        except TimeoutError:
            if service.peer is not None:
                service.peer.kill()

    def _start(self) -> None:
        if find_spec("pyarrow") is None:
            if not self._told:
                print("The served-feature log needs pyarrow: pip install 'sunup[deploy]'", file=sys.stderr)
            self._told = True
            return
        self._service = Service(
            "recorder",
            MODULE,
            self._project,
            rights=NOBODY_ELSE,
            release=self._release,
            on_up=lambda _peer, _hello: None,
            on_message=self._said,
        )
        self._service.start()

    def _said(self, _: Peer, message: Message) -> None:
        """`done`: it has nothing to do for now. Another one comes when there is, or to wait."""
        if message.head["op"] == "done" and self._service is not None and not self._stopping:
            self._service.stop()
            self._before, self._service = self._service, None

    def _spooled(self) -> list[str]:
        try:
            return os.listdir(self._project.spool)
        except FileNotFoundError:  # somebody tidied up; workers cannot spool anything then
            return []
