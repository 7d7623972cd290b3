"""Register the model that functions/reviews, beside this file, puts code around. Then: platform deploy reviews"""

from pathlib import Path

import mlflow
import pandas as pd
from sklearn.linear_model import LogisticRegression

from sunup.registry.mlflow import use
from sunup.settings import find_project

use(find_project(Path.cwd()))  # MLFLOW_TRACKING_URI, or SQLite under .sunup/
rows = pd.DataFrame(
    {"good": [0.0, 1, 2, 0, 3, 0, 1, 4], "bad": [1.0, 0, 0, 2, 0, 3, 0, 1], "words": [3.0, 2, 4, 5, 6, 4, 1, 9]}
)
liked = [0, 1, 1, 0, 1, 0, 1, 1]
model = LogisticRegression().fit(rows, liked)
mlflow.sklearn.log_model(
    model,
    name="model",
    registered_model_name="reviews",
    signature=mlflow.models.infer_signature(rows, model.predict(rows)),
    input_example=rows,
    pip_requirements=["scikit-learn"],
)
print("Registered. Next: platform deploy reviews")
