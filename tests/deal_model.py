"""Registers the model `deal` in the project of the folder it runs in: `python -m tests.deal_model`. Its weights are
left in weights.json, for tests to compare with."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from sunup.registry.mlflow import use
from sunup.settings import find_project

use(find_project(Path.cwd()))
names = ["amount", "buyer__trust", "seller__trust", "pairs__bought", "spent__per_visit"]
rows = pd.DataFrame(np.random.default_rng(3).uniform(0, 2, (200, len(names))), columns=names)
model = LogisticRegression().fit(rows, rows @ np.array([1, 2, -3, 0.5, -0.25]) > 0)
Path("weights.json").write_text(json.dumps([float(model.intercept_[0]), *map(float, model.coef_[0])]))
mlflow.sklearn.log_model(
    model,
    name="model",
    registered_model_name="deal",
    input_example=rows.head(50),
    signature=mlflow.models.infer_signature(rows, model.predict(rows)),
    pip_requirements=["scikit-learn"],
)
