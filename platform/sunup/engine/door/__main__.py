"""The door's process: `python -m sunup.engine.door RUN_FOLDER OWN_FD LISTENER_FD`."""

import asyncio
import socket
import sys
from pathlib import Path

from sunup.access.rights import confine
from sunup.engine.door.door import Door
from sunup.link.process import inherit_listener, name_process, raise_nofile


async def run(run_folder: Path, own: socket.socket, listener: socket.socket) -> None:
    """Serve until told to stop."""
    loop = asyncio.get_running_loop()
    door = Door(loop, listener, run_folder)
    own.setblocking(False)

    def acceptable() -> None:
        try:
            sock, _ = own.accept()
        except BlockingIOError:
            return
        door.meet(sock)

    loop.add_reader(own.fileno(), acceptable)
    await door.stopped.wait()


def main() -> None:
    """Entry point."""
    name_process("sunup-door")
    raise_nofile()
    confine()
    own, listener = (inherit_listener(int(number)) for number in sys.argv[2:4])
    asyncio.run(run(Path(sys.argv[1]), own, listener))


if __name__ == "__main__":
    main()
