"""One HTTP/1.1 connection: bytes to requests, answers in order, and an end that the door's duplicate survives.

An asyncio protocol on llhttp (httptools), for uvloop and asyncio alike. What is particular to Sunup: a connection may
be handed back to the door at a message boundary, the door reads from shared memory what each connection is doing, and
a synchronous handler answers within the read that brought the request: no task, no queue.
"""

import asyncio
import socket
from collections.abc import Awaitable, Coroutine
from math import inf
from typing import Final, cast

from sunup import limits
from sunup.errors import BodyTimeout, Overloaded
from sunup.link.states import State
from sunup.serve.http.deadline import Deadline
from sunup.serve.http.intake import Incoming, Intake
from sunup.serve.http.links import Links, shut
from sunup.serve.http.message import Handler, Pending, Response, render
from sunup.serve.http.phase import Phase

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

# Bound once: an enum member costs a lookup per use, and these are used for every request.
_IDLE, _READING, _EXECUTING, _WRITING = State.IDLE, State.READING, State.EXECUTING, State.WRITING


class Connection(asyncio.BufferedProtocol):
    """Serves `handler` on one client connection. `initial`: bytes the door read `hold` seconds before it came here."""

    __slots__ = (
        "_asked", "_deadline", "_draining", "_eof", "_handler", "_initial", "_intake", "_last", "_links", "_loop",
        "_phase", "_slot", "_task", "_transport", "_unbegun", "_unsent", "_waiting",
    )  # fmt: skip

    def __init__(self, handler: Handler, links: Links, slot: int, initial: bytes = b"", hold: float = 0.0) -> None:
        self._handler = handler
        self._links = links
        self._slot = slot
        self._initial = initial
        self._intake = Intake(handler, hold)
        self._waiting = self._intake.whole
        self._asked: Incoming | None = None  # the request that `_task` answers
        self._unbegun: Awaitable[Response] | None = None  # what `_task` will await in its first turn
        self._task: asyncio.Task[None] | Pending | None = None
        self._unsent = 0  # bytes the client had not taken when the deadline was set
        self._last = False  # nothing after what is in hand is answered here
        self._eof = self._draining = False
        self._phase = Phase.WORK
        self._deadline: Deadline
        self._transport: asyncio.Transport
        self._loop: asyncio.AbstractEventLoop

    def __repr__(self) -> str:
        return f"Connection(slot={self._slot}, {self._phase.value}, waiting={len(self._waiting)}, last={self._last})"

    # --- What the loop calls ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's protocol gets a stream's transport
        self._loop = asyncio.get_running_loop()
        self._deadline = Deadline(self._loop, self._late)
        # With a high-water mark of zero a write goes out at once or pauses us, so it is known when all is sent.
        self._transport.set_write_buffer_limits(high=0)
        self._handler.connections(1)
        if self._initial:
            self._take(self._initial)
            self._initial = b""
        else:
            self._settle()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # reads are bounded, whatever the loop suggests
        return self._intake.room()

    def buffer_updated(self, nbytes: int) -> None:
        self._take(self._handler.room[:nbytes])

    def eof_received(self) -> bool:
        """The client sends no more, but may still read: what is in hand is answered first."""
        self._eof = True
        if self._phase is not Phase.ANSWER:
            self._end()
        return True

    def pause_writing(self) -> None:
        self._phase = Phase.ANSWER
        self._transport.pause_reading()
        self._unsent = self._transport.get_write_buffer_size()
        self._deadline.set(limits.WRITE_SECONDS_MAX)

    def resume_writing(self) -> None:
        self._unsent = 0
        if self._phase is Phase.ANSWER:
            self._advance()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # a client that is gone is no event
        if self._phase is not Phase.OVER:
            self._forget()
            self._links.release(self._slot)

    def drain(self, *, silent: tuple[float, float] = (0.0, inf)) -> bool:
        """Finish what is in hand, then hand the connection back; at once when it is between requests. Whether it goes:
        one that has been silent for fewer or more seconds than `silent` says stays."""
        quiet = self._links.idle_s - self._deadline.left if self._phase is Phase.IDLE else 0.0
        if self._phase is Phase.LINGER or not silent[0] <= quiet <= silent[1]:
            return False
        self._draining = True
        if self._phase in (Phase.IDLE, Phase.HEAD, Phase.BODY):
            self._settle()
        return True

    # --- Requests in, answers out -------------------------------------------------------------------------------------

    def _take(self, data: memoryview | bytes) -> None:
        answering = self._phase is Phase.ANSWER
        if self._phase is Phase.LINGER:
            return  # what a refused client still sends is not read by anyone
        if not answering:
            self._links.state(self._slot, _READING)
        intake = self._intake
        intake.came = self._loop.time()
        intake.feed(data)
        if intake.lost:  # another function's request began among the bytes of ours, where it cannot be cut out
            self._last = True
            last = self._waiting[-1] if self._waiting else self._asked
            if last is not None:
                last.keep = False
        if not answering:
            self._advance()
        elif self._enough():
            self._transport.pause_reading()

    def _advance(self) -> None:
        """Answer what waits, in order, until something has to be waited for."""
        waiting = self._waiting
        if self._intake.counted:
            self._handler.unfinished.note(self._intake, 0)
        turns = limits.PIPELINED_MAX
        while waiting:
            if turns == 0:  # the other connections of this loop have their turn first
                self._phase = Phase.ANSWER
                self._deadline.lift()
                self._transport.pause_reading()
                self._loop.call_soon(self.resume_writing)
                return
            turns -= 1
            self._phase = Phase.WORK
            incoming = waiting.popleft()
            self._links.state(self._slot, _EXECUTING)
            try:
                answer = self._handler.handle(incoming.request)
            except Exception as error:  # whatever it is, the handler has an answer for it
                answer = self._handler.refuse(error, incoming.request.target)
            if not isinstance(answer, Response):
                self._await_answer(answer, incoming)
                return
            self._send(answer, incoming)
            if self._phase is Phase.ANSWER:
                return
        self._settle()

    def _await_answer(self, answer: Awaitable[Response], incoming: Incoming) -> None:
        self._phase, self._asked = Phase.ANSWER, incoming
        self._deadline.lift()  # how long it may take is the handler's to say
        if isinstance(answer, Pending):
            self._task, answer.told = answer, self._answered
        else:
            self._unbegun = answer
            self._task = self._loop.create_task(self._later(answer, incoming))
        if self._enough():
            self._transport.pause_reading()

    async def _later(self, answer: Awaitable[Response], incoming: Incoming) -> None:
        self._unbegun = None
        try:
            response = await answer
        except Exception as error:  # as in _advance
            response = self._handler.refuse(error, incoming.request.target)
        self._answered(response)

    def _answered(self, response: Response) -> None:
        incoming, self._task, self._asked = cast(Incoming, self._asked), None, None
        self._phase = Phase.WORK
        self._send(response, incoming)
        if self._phase is Phase.WORK:
            self._advance()

    def _send(self, response: Response, incoming: Incoming) -> None:
        if not incoming.keep or (self._links.leaving and not self._waiting):
            self._last, incoming.keep = True, False
            self._waiting.clear()
        self._links.state(self._slot, _WRITING)
        head_only = incoming.request.method == b"HEAD"
        self._transport.write(render(response, old=incoming.old, keep=incoming.keep, head_only=head_only))

    def _settle(self) -> None:
        """All that was in hand is answered and sent. What now?"""
        intake = self._intake
        if self._last or intake.closed:
            self._finish(intake)
        elif self._eof:
            self._end()
        elif intake.begun:
            self._await_rest(intake)
        elif self._draining:
            self._hand_back(b"")
        else:
            self._links.state(self._slot, _IDLE)
            self._phase = Phase.IDLE
            self._deadline.set(self._links.idle_s)
            self._transport.resume_reading()

    def _await_rest(self, intake: Intake) -> None:
        """Part of a request is here."""
        if self._draining and not intake.headed and intake.kept is not None:
            self._hand_back(intake.kept)
            return
        if self._handler.unfinished.note(intake, intake.held):
            self._refuse(Overloaded("The server holds as many unfinished requests as it may. Try again shortly."))
            return
        self._links.state(self._slot, _READING)
        phase = Phase.BODY if intake.headed else Phase.HEAD
        if phase is not self._phase:
            self._phase = phase
            self._deadline.set(limits.BODY_SECONDS_MAX if intake.headed else limits.HEAD_SECONDS_MAX)
        if intake.expects:
            intake.expects = False
            self._transport.write(_CONTINUE)
        self._transport.resume_reading()

    def _finish(self, intake: Intake) -> None:
        """No further request is answered on this connection here."""
        if intake.pending is not None and not self._last:
            self._hand_back(intake.pending)
        elif intake.refused is not None and not self._last:
            self._refuse(intake.refused)
        elif intake.begun or intake.closed:
            self._linger()
        else:
            self._end()

    def _refuse(self, error: Exception) -> None:
        self._last = True
        self._links.state(self._slot, _WRITING)
        response = self._handler.refuse(error, self._intake.target)
        self._transport.write(render(response, old=False, keep=False, head_only=self._intake.bodiless))
        if not self._unsent:
            self._linger()

    def _enough(self) -> bool:
        """Whether to stop reading ahead of the answer in progress."""
        waiting = self._waiting
        full = self._intake.closed or len(waiting) >= limits.PIPELINED_MAX
        return full or (bool(waiting) and sum(len(w.request.body) for w in waiting) > self._handler.body_bytes_max)

    # --- Ends ---------------------------------------------------------------------------------------------------------

    def _linger(self) -> None:
        """Say that no more is sent, and discard what still comes: closing on unread bytes would reset the connection,
        and a reset can destroy the answer before the client has read it."""
        shut(self._transport, socket.SHUT_WR)
        if self._eof:
            self._end()
            return
        self._phase = Phase.LINGER
        self._deadline.set(limits.LINGER_SECONDS_MAX)
        self._transport.resume_reading()

    def _end(self) -> None:
        """End the connection for both sides. The door holds a duplicate, so closing alone would send nothing."""
        if self._phase is not Phase.OVER:
            shut(self._transport, socket.SHUT_RDWR)
            self._forget()
            self._transport.abort()
            self._links.release(self._slot)

    def _hand_back(self, pending: bytes) -> None:
        self._forget()
        self._transport.abort()  # closes this process's descriptor and no more; all that was written has left it
        self._links.hand_back(self._slot, pending)

    def _forget(self) -> None:
        self._phase = Phase.OVER
        self._handler.unfinished.note(self._intake, 0)
        self._handler.connections(-1)
        self._deadline.close()
        if self._task is not None:
            self._task.cancel()
        if isinstance(self._unbegun, Coroutine):
            self._unbegun.close()  # nobody will ever await it

    def _late(self) -> None:
        """The deadline has passed."""
        if self._phase in (Phase.HEAD, Phase.BODY):
            self._refuse(BodyTimeout(f"The {self._phase.value} of the request did not arrive in time."))
        elif self._unsent and self._transport.get_write_buffer_size() < self._unsent:
            self.pause_writing()  # slow, but it reads
        else:
            self._end()
