"""A shop that asks `fraud` before it takes a payment: what a web application beside a function looks like.

    pip install httpx uvicorn
    python -m functions.fraud.train
    platform deploy fraud-v3
    uvicorn examples.web_app.app:app --port 8080

FUNCTION_URL names another function; SUNUP_API_KEY is sent where the engine wants a key. The browser never sees either.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from html import escape
from pathlib import Path
from time import time
from typing import Any, TypedDict
from urllib.parse import parse_qsl

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

URL = os.environ.get("FUNCTION_URL", "http://127.0.0.1:8000/functions/fraud")
PAGE = (Path(__file__).parent / "shop.html").read_text()
SECONDS_MAX = 1.0  # a customer waits no longer for our caution
CARD, CUSTOMER, MERCHANT = 1, 1, 1  # a real shop takes them from its session


class State(TypedDict):
    """What requests share: one client, whose connections are kept from call to call."""

    functions: httpx.AsyncClient


@contextlib.asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[State]:
    key = os.environ.get("SUNUP_API_KEY")
    headers = {"x-api-key": key} if key else {}
    async with httpx.AsyncClient(headers=headers, timeout=SECONDS_MAX) as client:
        yield {"functions": client}


async def decide(client: httpx.AsyncClient, payment: dict[str, Any], id: str) -> tuple[str, str]:
    """What to do with a payment ("allow", "block", or "review" by people), and why.

    A function that is asked to wait a moment (503 with Retry-After) is asked once more. No answer in time, or one that
    was made without the features it wanted, is no reason to lose a customer: a human looks.
    """
    try:
        async with asyncio.timeout(SECONDS_MAX):
            answer = await client.post(URL, json=payment, headers={"x-request-id": id})
            if answer.status_code == 503:
                await asyncio.sleep(float(answer.headers["retry-after"]))
                answer = await client.post(URL, json=payment, headers={"x-request-id": id})
    except (TimeoutError, httpx.HTTPError) as error:
        return "review", f"no answer: {error!r}"
    said = answer.json()
    if answer.status_code != 200:
        return "review", said["error"]["message"]
    (prediction,) = said["predictions"]
    if "defaulted" in prediction and prediction["decision"] == "allow":
        return "review", f"features are missing: {', '.join(prediction['defaulted'])}"
    return prediction["decision"], f"{said['model']} says {prediction['score']:.3f}"


async def shop(_: Request) -> HTMLResponse:
    return HTMLResponse(PAGE.replace("{outcome}", ""))


async def pay(request: Request) -> HTMLResponse:
    form = dict(parse_qsl((await request.body()).decode()))
    try:
        amount, kilometres = float(form["amount"]), float(form["km_from_home"])
    except (KeyError, ValueError):
        return HTMLResponse("Amount and distance are numbers.", 400)
    hour = time() % 86_400 / 3600
    ids = {"card_id": CARD, "customer_id": CUSTOMER, "merchant_id": MERCHANT}
    payment = {**ids, "amount": amount, "hour": hour, "km_from_home": kilometres}
    id = request.headers.get("x-request-id", os.urandom(8).hex())
    decision, why = await decide(request.state.functions, payment, id)
    outcome = f'<p class="{decision}"><b>{decision}</b> {escape(why)} <small>{escape(id)}</small></p>'
    return HTMLResponse(PAGE.replace("{outcome}", outcome))


app = Starlette(routes=[Route("/", shop), Route("/pay", pay, methods=["POST"])], lifespan=lifespan)
