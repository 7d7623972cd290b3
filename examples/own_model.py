"""Train a model of your own and register it in MLflow. Then: platform deploy cancer"""

from pathlib import Path

import mlflow
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sunup.registry.mlflow import use
from sunup.settings import find_project

use(find_project(Path.cwd()))  # MLFLOW_TRACKING_URI, or SQLite under .sunup/
rows, labels = load_breast_cancer(as_frame=True, return_X_y=True)
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)
mlflow.sklearn.log_model(
    model,
    name="model",
    registered_model_name="cancer",
    signature=mlflow.models.infer_signature(rows, model.predict(rows)),
    input_example=rows.head(200),
    pip_requirements=["mlflow", "scikit-learn", "pandas"],
)
print("Registered. Next: platform deploy cancer")
