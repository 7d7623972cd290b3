"""Registers the model `cards` in the project of the folder it runs in: `python -m tests.card_model`. It takes an amount
and two features of a stream feature view."""

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from sunup.registry.mlflow import use
from sunup.settings import find_project

use(find_project(Path.cwd()))
rows = pd.DataFrame(np.random.default_rng(3).uniform(0, 2, (200, 2)), columns=["amount", "card_amount_sum_24h"])
rows.insert(1, "card_tx_count_1h", np.arange(200) % 5)
model = LogisticRegression().fit(rows, rows.sum(axis=1) > 4)
mlflow.sklearn.log_model(
    model,
    name="model",
    registered_model_name="cards",
    input_example=rows.head(50),
    signature=mlflow.models.infer_signature(rows, model.predict(rows)),
    pip_requirements=["scikit-learn"],
)
