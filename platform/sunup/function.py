"""A bundle made ready to answer: model loaded and run once, read plan open, rows-to-arrays compiled.

`load` is all a cold start does between fork and the first answer, so it does each thing once and times itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from numpy.typing import NDArray

from sunup.batch.assemble import Assembly
from sunup.batch.handled import Handled
from sunup.batch.rank import Ranking
from sunup.batch.respond import Response
from sunup.batch.retrieve import Retrieval
from sunup.bundle.manifest import FEATURES, FEATURES_CODE, Manifest
from sunup.bundle.store import Store, arranged_folder, check, verify
from sunup.errors import BundleDamaged, ProofFailed, UsageError
from sunup.execute import arranged
from sunup.execute.executor import Executor
from sunup.execute.handler import Handler
from sunup.execute.onnx import OnnxExecutor, runtime
from sunup.execute.proof import Warmup, compare, read_warmup
from sunup.limits import BATCH_ROWS_MAX, IMAGE_RUN_ROWS_MAX, INLINE_SECONDS_MAX
from sunup.link.process import trim_heap
from sunup.lookup import plan as read_plan
from sunup.lookup.join import Lookup
from sunup.lookup.kinds.open import open_lookup
from sunup.settings import FEATURES_URL
from sunup.types import Field
from sunup.wire.fields import ImageField
from sunup.wire.oip import OipCodec
from sunup.wire.record import RecordCodec
from sunup.wire.tables.kserve import KServeCodec
from sunup.wire.tables.mlflow import MlflowCodec

if TYPE_CHECKING:
    from sunup.wire.image.pictures import Pictures

MODEL: Final = "model.onnx"
HANDLER: Final = "handler.py"
WARMUP: Final = "warmup.npz"
RETRIEVE: Final = "retrieve.onnx"  # the second model of a ranking function, and the rows that prove it
RETRIEVE_WARMUP: Final = "retrieve.npz"


class Cost(NamedTuple):
    """What a model run of `rows` rows was measured to take, in seconds; and what opening the model took, likewise."""

    rows: int
    seconds: float
    load: float = inf

    @property
    def rows_now_max(self) -> int:
        """How many rows run on the event loop: as many as INLINE_SECONDS_MAX pays for, or none."""
        if self.seconds > INLINE_SECONDS_MAX:
            return 0
        return max(1, int(self.rows * INLINE_SECONDS_MAX / max(self.seconds, 1e-9)))


@dataclass(frozen=True, slots=True)
class Function:
    """What a pipeline is made of. `lookup` is None for a function without features, `ranking` for one that ranks
    nothing, `retrieval` for one whose callers name every candidate.

    `handled`: the run of a function with code of its own around the model, else None; its `assembly` is then empty.
    `pictures` decodes the images of an image function's calls, and is None for any other.
    `cost`: what a model run costs on this machine. `timings`: seconds of "load" and "prove".
    """

    manifest: Manifest
    executor: Executor
    lookup: Lookup | None
    assembly: Assembly
    response: Response
    cost: Cost
    timings: Mapping[str, float]
    handled: Handled | None = None
    pictures: "Pictures | None" = None
    ranking: Ranking | None = None
    retrieval: Retrieval | None = None

    @property
    def run_rows_max(self) -> int:
        """Rows of one model run."""
        return BATCH_ROWS_MAX if self.pictures is None else IMAGE_RUN_ROWS_MAX

    @property
    def request(self) -> tuple[Field, ...]:
        """The request fields as codecs know them: the one that is an image is an ImageField."""
        image = self.manifest.image
        if image is None:
            return self.manifest.request
        return tuple(ImageField(f.name, f.dtype) if f.name == image.field else f for f in self.manifest.request)

    def record_codec(self, revision: int) -> RecordCodec:
        """The native codec, which names the revision in every reply."""
        manifest = self.manifest
        return RecordCodec(
            request=self.request,
            response=[field.field for field in manifest.answers],
            function=manifest.function,
            model=f"{manifest.model.name}/{manifest.model.version}",
            revision=revision,
            beside=manifest.beside,
        )

    def oip_codec(self) -> OipCodec:
        """The Open Inference Protocol codec."""
        manifest = self.manifest
        return OipCodec(
            request=self.request,
            response=[field.field for field in manifest.answers],
            function=manifest.function,
            version=manifest.model.version,
            matrix=manifest.inputs[0] if self.lookup is None and len(manifest.inputs) == 1 else None,
        )

    def kserve_codec(self) -> KServeCodec:
        """The KServe v1 codec."""
        return KServeCodec(request=self.manifest.request, response=self.manifest.answers)

    def mlflow_codec(self) -> MlflowCodec:
        """The codec of MLflow's scoring server."""
        return MlflowCodec(request=self.manifest.request, response=self.manifest.answers)

    async def open(self) -> None:
        """Connect to the online store, in the process and event loop that will read from it."""
        if self.lookup is not None:
            await self.lookup.open()

    async def aclose(self) -> None:
        """Let go of the store's connections, then of the model: no read may come back to a model that is gone."""
        if self.lookup is not None:
            await self.lookup.close()
        if self.pictures is not None:
            self.pictures.close()
        self.executor.close()
        if self.retrieval is not None:
            self.retrieval.close()


def load(
    bundle: Path,
    *,
    settings: Mapping[str, str],
    prove: bool,
    cost: Cost | None = None,
    kept: Executor | None = None,
    machine: str = "",
    streams: bool = False,
) -> Function:
    """The function in the folder `bundle`. `prove`: check every byte and the model's answers, not only its shape.

    `cost`: what an earlier worker of this bundle measured on this machine; it saves a cold start the warm-up run.
    `kept`: its model, as `open_kept` opened it before. `machine`: names this one where a large model may be kept as it
    likes it best; a proving start makes that and proves it, others find it. `streams`: it scores the function's topic,
    so that what is aggregated there comes with the rows.
    Raises BundleDamaged, ProofFailed, or UsageError when a setting is missing.
    """
    started, manifest = perf_counter(), verify(bundle) if prove else check(bundle)
    executor = kept or _open_main(bundle, manifest, machine, prove=prove)
    lookup = _open_lookup(bundle / FEATURES, manifest, settings, given=streams)
    fields = manifest.rows + (lookup.columns if lookup else ())
    handled = _open_handler(bundle / HANDLER, manifest, executor, fields)
    assembly = Assembly((), ()) if handled else Assembly(manifest.inputs, fields)
    response = Response(manifest.response)
    pictures = None if manifest.image is None else _open_pictures(manifest)
    retrieval = _open_retrieval(bundle, manifest, prove=prove)
    loaded = perf_counter()
    if prove or cost is None:
        warmup = read_warmup(bundle / WARMUP)
        given, cost = _run_first(executor, warmup, tuple(warmup.expected) if prove or handled else response.outputs)
        if prove:
            compare(given, warmup.expected, manifest.tolerance)
            trim_heap()  # a model laid out for this machine took several times its size
    if kept is None:
        cost = cost._replace(load=min(cost.load, loaded - started))
    return Function(
        manifest=manifest,
        executor=executor,
        lookup=lookup,
        assembly=assembly,
        response=response,
        cost=cost,
        timings={"load": loaded - started, "prove": perf_counter() - loaded},
        handled=handled,
        pictures=pictures,
        ranking=_ranking(manifest),
        retrieval=retrieval,
    )


def open_kept(bundle: Path) -> Executor:
    """The model of a bundle, for `load` in a fork of this process. Raises what `load` does of damage."""
    return _open_main(bundle, check(bundle))


def _open_main(bundle: Path, manifest: Manifest, machine: str = "", *, prove: bool = False) -> Executor:
    model, layout = bundle / MODEL, manifest.image is not None
    if machine:
        stage = Store(bundle.parent).stage if prove else None
        found = arranged.open_model(model, arranged_folder(bundle, machine), layout=layout, stage=stage)
        if found is not None:
            return found
    return _open_model(model, layout=layout)


def _open_model(path: Path, *, layout: bool) -> Executor:
    try:
        return OnnxExecutor(path, optimised=True, layout=layout)
    except Exception as error:  # the runtime has no exception class of its own to catch
        raise BundleDamaged(f"{path} cannot be loaded by ONNX Runtime {runtime()}: {error}") from error


def _open_lookup(path: Path, manifest: Manifest, settings: Mapping[str, str], *, given: bool) -> Lookup | None:
    if path.name not in manifest.files:
        return None
    url = settings.get(FEATURES_URL)
    if url is None:
        raise UsageError(
            f"{manifest.function} reads features, and the engine has no {FEATURES_URL} setting. "
            "Give it the online store, for example sqlite:///absolute/path or redis://host:port/db."
        )
    plan, code = read_plan.load(path.read_bytes()), path.with_name(FEATURES_CODE)
    return open_lookup(plan, url, manifest.rows, code, aged=manifest.log is not None, given=given)


def _ranking(manifest: Manifest) -> Ranking | None:
    rank = manifest.rank
    if rank is None:
        return None
    return Ranking(
        manifest.request,
        listed=rank.list,
        item=rank.item,
        by=rank.by,
        top=rank.top,
        retrieves=rank.retrieval is not None,
    )


def _open_retrieval(bundle: Path, manifest: Manifest, *, prove: bool) -> Retrieval | None:
    """The second model of a ranking function, proven as the first one is."""
    if manifest.rank is None or manifest.rank.retrieval is None:
        return None
    declared = manifest.rank.retrieval
    executor = _open_model(bundle / RETRIEVE, layout=False)
    if prove:
        warmup = read_warmup(bundle / RETRIEVE_WARMUP)
        compare(_run_first(executor, warmup, tuple(warmup.expected))[0], warmup.expected, manifest.tolerance)
    return Retrieval(Assembly(declared.inputs, manifest.request), executor.run, declared.output.name, executor.close)


def _open_handler(path: Path, manifest: Manifest, executor: Executor, fields: Sequence[Field]) -> Handled | None:
    spec = manifest.handler
    if spec is None:
        return None
    given = manifest.response if "postprocess" in spec.hooks else None
    hooks = Handler(path)
    return Handled(hooks, executor.run, inputs=manifest.inputs, fields=fields, outputs=spec.outputs, given=given)


def _open_pictures(manifest: Manifest) -> "Pictures":
    from sunup.wire.image.pictures import Pictures  # imports Pillow: tens of milliseconds, for image functions only

    assert manifest.image is not None
    return Pictures(manifest.image, manifest.request, bytes_max=manifest.limits.body_bytes)


def _run_first(executor: Executor, warmup: Warmup, outputs: Sequence[str]) -> tuple[dict[str, NDArray[Any]], Cost]:
    """The outputs of the warm-up rows, and what a run of them costs.

    A first run also sets the model up. Where that alone may have made it look dear, a second run is what counts; a
    model far beyond the bound is not run twice, for its cold start would pay for it.
    """
    seconds = inf
    for _ in range(2):
        started = perf_counter()
        try:
            given = executor.run(warmup.feeds, outputs)
        except Exception as error:
            raise ProofFailed(f"The model cannot run its own warm-up rows on this machine: {error}") from error
        seconds = min(seconds, perf_counter() - started)
        if seconds <= INLINE_SECONDS_MAX or seconds > 10 * INLINE_SECONDS_MAX:
            break
    return dict(zip(outputs, given, strict=True)), Cost(warmup.rows, seconds)
