"""A function with stream feature views whose scores show what they saw: real bundles, a real engine, a topic."""

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from feast import FeatureStore
from tests.engine_fixture import Engine
from tests.streaming import views
from tests.streaming.stores import OnlineStore, Stored
from tests.topics import Scored, Topics

from sunup.bundle.manifest import FEATURES, FORMAT, Limits, Manifest, Model
from sunup.bundle.store import Store, digest_file
from sunup.lookup.plan import ReadPlan, dump
from sunup.settings import STREAM_BROKER
from sunup.types import Aggregated, ResponseField, Tensor


class Streaming(Scored):
    """Its outputs are `n` and every feature, times the factor of the revision. `make`: the views, given the topic."""

    def __init__(
        self, engine: Engine, topics: Topics, store: OnlineStore, make: Mapping[str, Any] | None = None, **more: Any
    ) -> None:
        super().__init__(engine, topics, factor=1.0, guarantee="exactly-once", **more)
        made = make or {"recent": views.recent, "hour": views.hour}
        self.specs: dict[str, Aggregated] = {name: one(self.stream.input) for name, one in made.items()}
        self.columns = ["n", *views.names(self.specs)]
        self.store = store
        self.feast: FeatureStore = views.applied(engine.project.root / "features", store.config, self.specs)

    def deploy(self, factor: float | None = None, **_: Any) -> None:
        """Another revision where the factor is another."""
        self.factor = factor or self.factor
        digest = self._bundle(views.plan(self.specs))
        settings = {STREAM_BROKER: self.topics.broker, "features_url": self.store.url, **self.settings}
        said = self.engine.deploy(self.name, digest, settings=settings, on_event=lambda _: None)
        self.revision = said["revision"]

    def twin(self, engine: Engine) -> "Streaming":
        """The same function with the same group, store and topics, for another engine."""
        other = copy.copy(self)
        other.engine = engine
        return other

    def online(self, view: str, cards: Iterable[int]) -> dict[int, Stored]:
        """What the store holds of these cards."""
        features = [each.feature for each in self.specs[view].aggregations]
        return self.store.read(views.PROJECT, view, features, cards)

    def _bundle(self, plan: ReadPlan) -> str:
        store = Store(self.engine.project.bundles)
        width = len(self.columns)
        arrays: dict[str, Any] = views.warmup(width, self.factor)
        with store.stage() as folder:
            (folder / "model.onnx").write_bytes(views.times_model(width, self.factor))
            np.savez(folder / "warmup.npz", **arrays)
            (folder / "parity.json").write_bytes(b"{}")
            (folder / FEATURES).write_bytes(dump(plan))
            manifest = self._manifest(folder)
            (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
            return store.add(folder)

    def _manifest(self, folder: Path) -> Manifest:
        width = len(self.columns)
        return Manifest(
            format=FORMAT,
            sunup="test",
            function=self.name,
            model=Model(self.name, "1", "run", "onnx"),
            request=views.REQUEST,
            inputs=(Tensor("x", "float64", (-1, width), tuple(self.columns)),),
            outputs=(Tensor("y", "float64", (-1, width)),),
            response=tuple(
                ResponseField(name, "float64", output="y", column=at) for at, name in enumerate(self.columns)
            ),
            tolerance=1e-9,
            scale=self.scale,
            limits=Limits(),
            example={"n": 1, "card_id": 1, "transaction_id": "t", "event_time": "2026-01-01T00:00:00Z"}
            | {"amount": 1.0, "fee": 1.0},
            files={path.name: digest_file(path) for path in sorted(folder.iterdir())},
            stream=self.stream,
            aggregates=tuple(f"{views.PROJECT}/{name}" for name in self.specs),
        )
