"""Train `moderate` on pictures it makes itself, and register it as an ONNX graph.

    python -m functions.moderate.train [--again] [--pictures 4200] [--epochs 8] [--seed 40]

Takes less than a minute on one core. Run again, it keeps the version there is; --again makes a newer one.

What is measured is of held-out pictures, which share no pixel and no digit with those that were trained on (pictures.py
says how), beside a logistic regression on the mean and spread of each colour: what can be had without looking at
shapes. Two photographs are a small world: the figures say how well the network tells these three kinds of picture
apart, not how well it would do on a marketplace's own.
"""

import argparse
import logging
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from functions.moderate.network import Network, to_onnx
from functions.moderate.pictures import LABELS, SEED, SIZE, Pictures, Studio
from sunup.registry.mlflow import use
from sunup.settings import Project, find_project

NAME: Final = "moderate"
PICTURES: Final = 4200  # trained on
HELDOUT: Final = 1200
EPOCHS: Final = 8
BATCH: Final = 48
RATE: Final = 0.002  # falls to nothing along half a cosine
EXAMPLE_ROWS: Final = 24
LIBRARIES: Final = ("mlflow", "numpy", "onnx", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Trained:
    """A network, and what is known of it. `metrics`: of the held-out pictures."""

    network: Network
    metrics: dict[str, float]
    example: NDArray[np.uint8]


def fit(pictures: Pictures, *, epochs: int, seed: int) -> Network:
    """Train on the pictures, their colours exchanged at random: no colour means anything here."""
    network, random = Network(len(LABELS), seed), np.random.default_rng(seed)
    steps = epochs * (len(pictures.labels) // BATCH)
    step = 0
    for epoch in range(epochs):
        order = random.permutation(len(pictures.labels))
        losses = []
        for at in range(0, len(order) - BATCH + 1, BATCH):
            picked = order[at : at + BATCH]
            images = pictures.images[picked][..., random.permutation(3)]
            rate = RATE * 0.5 * (1 + np.cos(np.pi * step / steps))
            losses.append(network.learn(images, pictures.labels[picked], rate))
            step += 1
        print(f"epoch {epoch + 1} of {epochs}: loss {np.mean(losses):.3f}")
    return network


def baseline(train: Pictures, heldout: Pictures) -> float:
    """The accuracy of what sees only how bright and how mixed each colour is."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(_colours(train.images), train.labels)
    return float(model.score(_colours(heldout.images), heldout.labels))


def measure(network: Network, train: Pictures, heldout: Pictures) -> dict[str, float]:
    """On the held-out pictures: accuracy, the baseline's, and how well "text" is told from the rest."""
    given = network.probabilities(heldout.images)
    text = LABELS.index("text")
    return {
        "accuracy": float((given.argmax(axis=1) == heldout.labels).mean()),
        "baseline_accuracy": baseline(train, heldout),
        "text_roc_auc": float(roc_auc_score(heldout.labels == text, given[:, text])),
    }


def train(*, pictures: int, epochs: int, seed: int) -> Trained:
    """Make the pictures, train, measure."""
    made, heldout = Studio("train", seed).make(pictures), Studio("heldout", seed).make(HELDOUT)
    network = fit(made, epochs=epochs, seed=seed)
    return Trained(network, measure(network, made, heldout), made.images[:EXAMPLE_ROWS])


def register(trained: Trained, params: dict[str, Any]) -> str:
    """Log and register the network as a graph; returns the new version."""
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, SIZE, SIZE, 3), "image")]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(LABELS)), "probability")]),
    )
    with mlflow.start_run(run_name="convolutional network"):
        mlflow.log_params(params)
        mlflow.log_metrics(trained.metrics)
        logged = mlflow.onnx.log_model(
            to_onnx(trained.network, SIZE),
            name="model",
            registered_model_name=NAME,
            signature=signature,
            input_example={"image": trained.example},
            pip_requirements=[
                f"{library}=={version(library)}" for library in ("mlflow", "numpy", "onnx", "onnxruntime")
            ],
        )
    return str(logged.registered_model_version)


def run(project: Project, *, again: bool, pictures: int, epochs: int, seed: int) -> None:
    """The whole flow; see the top of this file."""
    use(project)
    client = MlflowClient()
    have = len(client.search_model_versions(f"name='{NAME}'"))
    if have and not again:
        print(f"{NAME} has {have} versions already; --again trains a newer one.")
        return
    trained = train(pictures=pictures, epochs=epochs, seed=seed)
    made = register(trained, {"pictures": pictures, "epochs": epochs, "seed": seed})
    shown = ", ".join(f"{name} {value:.4f}" for name, value in trained.metrics.items())
    print(f"{NAME} version {made}: {shown}")


def _colours(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.concatenate([images.mean((1, 2)), images.std((1, 2))], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and register the model moderate.")
    parser.add_argument("--again", action="store_true", help="train anew, even if a version exists")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="how many to train on")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    logging.getLogger("mlflow").setLevel(logging.ERROR)  # it remarks on every model that there is no pip beside uv
    run(find_project(Path.cwd()), again=given.again, pictures=given.pictures, epochs=given.epochs, seed=given.seed)


if __name__ == "__main__":
    main()
