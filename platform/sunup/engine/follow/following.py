"""Functions that follow an alias: the record of them, and the process that looks whether an alias moved.

The follower (`python -m sunup.cli.follow.follower`) is the engine's child, because the engine is what is always there;
it is started, never imported, for it talks to the registry. It gets the environment of whoever said `--follow`, which
is kept in memory only: a supervisor that was started again gives it its own.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sunup.engine.follow.record import Follow, Follows
from sunup.engine.local.client import environment
from sunup.engine.local.services import NOBODY_ELSE, Service
from sunup.errors import EngineError
from sunup.limits import FOLLOWS_MAX
from sunup.link.channel import Message
from sunup.link.peer import Peer
from sunup.settings import Project

MODULE: Final = "sunup.cli.follow.follower"
END_SECONDS_MAX: Final = 2.0


class Look(NamedTuple):
    """The last look at an alias. `at`: Unix seconds; `trouble`: why nothing is known, or ""."""

    at: float
    trouble: str


class Following:
    """What follows an alias, in one engine. The follower is there while anything does. `release`: see Service."""

    def __init__(self, project: Project, record: Follows, release: str) -> None:
        self._project = project
        self._release = release
        self._record = record
        self._follows = {follow.function: follow for follow in record.all()}
        self._askers: dict[str, dict[str, Any]] = {}  # environment and folder of whoever said --follow
        self._looks: dict[str, Look] = {}
        self._service: Service | None = None
        self._stopping = False

    def __repr__(self) -> str:
        return f"Following({', '.join(f'{name}: {one.name}' for name, one in self._follows.items())})"

    def start(self) -> None:
        """Go on with what the record says."""
        if self._follows and self._service is None and not self._stopping:
            self._service = Service(
                "follower",
                MODULE,
                self._project,
                rights=NOBODY_ELSE,
                release=self._release,
                given=environment,
                on_up=self._up,
                on_message=self._said,
            )
            self._service.start()

    async def stop(self) -> None:
        """End the follower, for good; what is recorded stays."""
        self._stopping = True
        service = self._end()
        if service is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(service.ended.wait(), END_SECONDS_MAX)

    def check(self, function: str, wish: Mapping[str, Any] | None) -> None:
        """Before a deploy: whether it may be done. Raises EngineError."""
        known = self._follows.get(function)
        if wish is None:
            return
        if "id" in wish:
            if known is None or known.id != wish["id"]:
                raise EngineError(f"{function} was deployed by somebody else meanwhile.")
        elif known is None and len(self._follows) >= FOLLOWS_MAX:
            raise EngineError(f"{FOLLOWS_MAX} functions follow an alias, and no more may. Deploy without --follow.")

    def deployed(self, function: str, wish: Mapping[str, Any] | None) -> dict[str, Any]:
        """After a deploy: remember what was wished, and what to tell whoever deployed.

        `wish`: None: follow nothing. With an `id`, from the follower: go on, at another `version` of `model`. Else
        begin: `name`, `model`, `alias`, `registry`, `version`, and `environment` and `folder` of whoever wishes it.
        """
        known = self._follows.get(function)
        if wish is None:
            self.forget(function)
            return {"follows": None, **({"followed": known.name} if known is not None else {})}
        if "id" in wish:
            assert known is not None
            new = known._replace(version=wish["version"], model=wish["model"], reason="", at=time.time())
        else:
            fields = {name: wish[name] for name in ("name", "model", "alias", "registry", "version")}
            new = Follow(function=function, id=f"{time.time_ns():x}", reason="", at=time.time(), **fields)
            self._askers[function] = {"environment": wish["environment"], "folder": wish["folder"]}
        self._note(new)
        if self._service is None:
            self.start()
        elif "id" not in wish:
            self._tell(new)
        return {"follows": new.name}

    def forget(self, function: str) -> None:
        """It follows nothing from now on."""
        if self._follows.pop(function, None) is None:
            return
        self._record.forget(function)
        self._askers.pop(function, None)
        self._looks.pop(function, None)
        if not self._follows:
            self._end()
        elif self._service is not None and self._service.peer is not None:
            self._service.peer.channel.send({"op": "forget", "function": function})

    def facts(self, function: str) -> dict[str, Any]:
        """Of one function, under "follows"; nothing for one that follows nothing."""
        known = self._follows.get(function)
        if known is None:
            return {}
        look = self._looks.get(function)
        refused = {"version": known.version, "reason": known.reason, "at": known.at}
        return {
            "follows": {
                "name": known.name,
                "version": known.version,
                "looked_at": None if look is None else look.at,
                "trouble": "" if look is None else look.trouble,
                "refused": refused if known.reason else None,
            }
        }

    @property
    def peer(self) -> Peer | None:
        """The follower, if it is up."""
        return None if self._service is None else self._service.peer

    def _end(self) -> Service | None:
        service, self._service = self._service, None
        if service is not None:
            service.stop()
        return service

    def _note(self, follow: Follow) -> None:
        self._record.note(follow)
        self._follows[follow.function] = follow

    def _tell(self, follow: Follow) -> None:
        peer = self.peer
        if peer is not None:
            asker = self._askers.get(follow.function, {"environment": None, "folder": None})
            peer.channel.send({"op": "follow", "follow": follow._asdict(), **asker})

    def _up(self, _: Peer, __: Message) -> None:
        for follow in self._follows.values():
            self._tell(follow)

    def _said(self, _: Peer, message: Message) -> None:
        """`looked`: functions, and what kept it from knowing, or ""; `refused`: a version, and why."""
        head = message.head
        if head["op"] == "looked":
            look = Look(time.time(), head["trouble"])
            self._looks |= {name: look for name in head["functions"] if name in self._follows}
        elif head["op"] == "refused":
            known = self._follows.get(head["function"])
            if known is not None and known.id == head["id"]:
                self._note(known._replace(version=head["version"], reason=head["reason"], at=time.time()))
