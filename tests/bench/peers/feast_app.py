"""The floor's app with its features from Feast's SDK: Starlette, uvicorn, msgspec, ONNX Runtime, one FeatureStore.

Arguments: MODEL REPOSITORY PORT. The read is on the event loop: on one core a thread only adds to it, and so does the
SDK's asynchronous client. The feature service is held, and entities are given by column.
"""

import asyncio
import sys
from typing import Any

import msgspec
import numpy as np
import uvloop
from feast import FeatureStore
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.bench.feature_data import SERVICE, VIEWS
from tests.bench.floor.serving import serve
from tests.bench.floor.session import open_session

Record = msgspec.defstruct(
    "Record", [("card_id", int), ("merchant_id", int), *((f"f{i}", float) for i in range(10))], gc=False
)
COLUMNS = [name for _, _, names in VIEWS for name in names]
decode = msgspec.json.Decoder(Record).decode
encode = msgspec.json.Encoder().encode


def main() -> None:
    session, store = open_session(sys.argv[1]), FeatureStore(repo_path=sys.argv[2])
    service = store.get_feature_service(SERVICE)

    async def predict(request: Request) -> Response:
        record: Any = decode(await request.body())
        keys = {"card_id": [record.card_id], "merchant_id": [record.merchant_id]}
        found = store.get_online_features(features=service, entity_rows=keys).to_dict()
        row = (*msgspec.structs.astuple(record)[2:], *(found[name][0] for name in COLUMNS))
        p = float(session.run(["probability"], {"input": np.array([row], dtype=np.float32)})[0][0, 1])
        answer = encode({"predictions": [{"score": p, "decision": "block" if p > 0.9 else "allow"}]})
        return Response(answer, media_type="application/json")

    app = Starlette(routes=[Route("/functions/{name}", predict, methods=["POST"])])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(app, int(sys.argv[3])))


if __name__ == "__main__":
    main()
