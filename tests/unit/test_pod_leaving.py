"""The port of a pod that ends, in one process: what is cut off in the end, and what makes room before."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext

import pytest
from tests.unit.serving import GET, SLOW, Echo

from sunup.errors import EngineError
from sunup.limits import POD_END_SECONDS, POD_IDLE_SECONDS_MAX
from sunup.serve.pod import calls, life
from sunup.serve.pod.listening import Listening, bind

PATIENCE_SECONDS = 10.0


class Stuck:
    """Has calls in progress that never end, as leaving sees a handler."""

    last_call = 0.0

    def __init__(self, inflight: int) -> None:
        self.inflight = inflight
        self.left = False

    def leave(self) -> None:
        self.left = True


@asynccontextmanager
async def listening(connections_max: int = 100) -> AsyncIterator[tuple[Listening, int]]:
    """A port and its number. What is open in the end goes, which the end of a pod's process sees to otherwise."""
    sock = bind(0, "PORT")
    made = Listening(sock, Echo(), connections_max)
    await made.open()
    yield made, sock.getsockname()[1]
    await made.stop()
    for connection in list(made._open.values()):
        connection._transport.abort()
    await until(lambda: not len(made))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("inflight", [3, 0])
def test_what_does_not_end_is_cut_off_and_said(monkeypatch: pytest.MonkeyPatch, inflight: int) -> None:
    """Of calls that is a failure; a connection that sends half a request and then nothing is none."""
    monkeypatch.setattr(life, "POD_INTAKE_SECONDS_MAX", 0.1)
    monkeypatch.setattr(life, "POD_QUIET_SECONDS", 0.1)
    monkeypatch.setattr(life, "POD_GRACE_SECONDS", POD_END_SECONDS + 0.5)

    async def end() -> None:
        handler = Stuck(inflight)
        async with listening() as (port, number):
            _, writer = await asyncio.open_connection("127.0.0.1", number)
            writer.write(SLOW if inflight else GET[:20])
            await until(lambda: len(port) == 1)
            told = pytest.raises(EngineError, match="3 calls were not answered") if inflight else nullcontext()
            with told:
                await calls._leave(handler, port)  # type: ignore[arg-type]  # all that is asked of it
            assert handler.left
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", number)
            writer.close()

    asyncio.run(end())


def test_silent_connections_make_room() -> None:
    async def crowd() -> None:
        async with listening(connections_max=5) as (port, number):
            assert port.idle_s == POD_IDLE_SECONDS_MAX
            first = [await asyncio.open_connection("127.0.0.1", number) for _ in range(5)]
            ended = [asyncio.ensure_future(reader.read()) for reader, _ in first]
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not all(one.done() for one in ended):
                    reader, writer = await asyncio.open_connection("127.0.0.1", number)
                    writer.write(GET)
                    assert (await reader.read(4096)).startswith(b"HTTP/1.1 200"), "who comes is served meanwhile"
                    writer.close()
                    await asyncio.sleep(0.02)  # some of them a second: those that are silent for less stay
            for _, writer in first:
                writer.close()

    asyncio.run(crowd())
