"""How every floor that answers over HTTP is run: uvicorn with httptools, nothing logged, nothing collected."""

import gc
from typing import Any

import uvicorn


async def serve(app: Any, port: int) -> None:
    """Serve an ASGI app on loopback until told to end. What exists by now is never scanned for garbage."""
    config = uvicorn.Config(
        app, port=port, http="httptools", loop="none", lifespan="off",
        access_log=False, log_level="error", date_header=False, server_header=False,
    )  # fmt: skip
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    await uvicorn.Server(config).serve()
