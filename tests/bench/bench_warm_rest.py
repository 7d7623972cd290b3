"""warm-rest: one-row JSON, 30 features, LightGBM of 200 trees, keep-alive; against two hand-written floors and other
model servers.

    python -m tests.bench warm-rest [--rounds 11] [--seconds 2] [--peers litserve,...]

Ours is the whole local engine: connections come through the door. All of its processes share the server core. The
other servers are measured one at a time, each next to ours; see peers/peers.py.
"""

import sys
import tempfile
from argparse import Namespace
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from tests.bench import harness
from tests.bench.models import BODIES, record_bodies, rows
from tests.bench.peers.peers import PEERS, running
from tests.bench.peers.peers import bodies as bodies_for
from tests.bench.scoring import scoring_engine

PEER_ROUNDS = 5
PACKAGES = ("httptools", "msgspec", "numpy", "onnxruntime", "starlette", "uvicorn", "uvloop")


def main() -> int:
    bodies = record_bodies()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        model, ours = stack.enter_context(scoring_engine(folder))
        subjects = {"sunup": ours}
        for floor in ("raw_asgi", "starlette_app"):
            base = stack.enter_context(harness.server(f"tests.bench.floor.{floor}", model))
            subjects[floor] = f"{base}/functions/score"
        _check_answers(subjects, bodies)
        goals = {"warm-rest-starlette": (0.85, "starlette_app"), "warm-rest-raw": (0.65, "raw_asgi")}
        options = harness.options("requests per second, side by side", rounds=11, seconds=2, peers=",".join(PEERS))
        report = harness.compare("warm-rest", subjects, harness.Wrk(folder, bodies), goals, options)
        for peer in filter(None, options.peers.split(",")):
            _beside(peer, subjects["sunup"], folder, options, report)
    return report.finish(PACKAGES)


def _beside(peer: str, ours: str, folder: Path, options: Namespace, report: harness.Report) -> None:
    """Rounds of ours and a peer in turn, each with the calls it takes."""
    own, sent = record_bodies(), bodies_for(PEERS[peer], rows(BODIES).tolist())
    loads: dict[str, list[harness.Load]] = {"sunup": [], peer: []}
    with running(peer, folder / "model.onnx", folder / peer, sent[0]) as (url, _):
        for body, theirs in zip(own, sent, strict=True):
            score = PEERS[peer].score(harness.post_json(url, theirs))
            if abs(harness.post_json(ours, body)["predictions"][0]["score"] - score) > 1e-6:
                raise SystemExit(f"{peer} disagrees: {score}")
        wrks = {"sunup": harness.Wrk(folder, own), peer: harness.Wrk(folder / peer, sent)}
        for number in range(PEER_ROUNDS + 1):
            for name, at in (("sunup", ours), (peer, url)):
                load = wrks[name].run(at, seconds=options.seconds if number else 1)
                loads[name] += [load] if number else []
    print(harness.table(loads))
    report.rounds[peer] = [asdict(load) for load in loads[peer]]
    report.rounds[f"sunup beside {peer}"] = [asdict(load) for load in loads["sunup"]]
    rps = {name: [load.rps for load in each] for name, each in loads.items()}
    report.goals.append(harness.ratio_goal(f"warm-rest-{peer}", 8.0, rps["sunup"], rps[peer]))


def _check_answers(subjects: dict[str, str], bodies: list[bytes]) -> None:
    """Every subject gives the same predictions, to float32."""
    for body in bodies:
        answers = [harness.post_json(url, body)["predictions"][0] for url in subjects.values()]
        for answer in answers[1:]:
            if abs(answer["score"] - answers[0]["score"]) > 1e-6 or answer["decision"] != answers[0]["decision"]:
                raise SystemExit(f"the subjects disagree: {answers}")


if __name__ == "__main__":
    sys.exit(main())
