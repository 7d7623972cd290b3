"""From a table to a function with features of its own, in a copy of this folder:

    python train.py
    platform deploy progression
    platform call progression '{"patient_id": 7, "age": 50, "bmi": 27.5, "bp": 94}'
    platform features compare progression

The rows are scikit-learn's bundled diabetes study: 442 patients, and how far the disease had gone a year later.
The laboratory values go into a Feast repository, what a doctor asks comes with the call.
"""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
from feast import FeatureStore
from lightgbm import LGBMRegressor
from sklearn.datasets import load_diabetes

from sunup.registry.mlflow import log_sample, use
from sunup.settings import find_project

LABS = {"s1": "cholesterol", "s2": "ldl", "s3": "hdl", "s5": "triglycerides_log", "s6": "glucose"}
VISIT = ["age", "bmi", "bp"]

project = Path.cwd()
use(find_project(project))  # MLFLOW_TRACKING_URI, or SQLite under .sunup/
table, progressed = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
now = datetime.now(UTC)
table = table.rename(columns=LABS).assign(patient_id=range(len(table)), event_timestamp=now - timedelta(days=1))

# 1. Laboratory values: a file, the repository's definitions, the online store.
(project / "features" / "data").mkdir(exist_ok=True)
(project / ".sunup" / "features").mkdir(parents=True, exist_ok=True)
table[["patient_id", "event_timestamp", *LABS.values()]].to_parquet(project / "features" / "data" / "labs.parquet")
feast = Path(sys.executable).with_name("feast")
subprocess.run([feast, "apply"], cwd=project / "features", check=True, stdout=subprocess.DEVNULL)
store = FeatureStore(repo_path=str(project / "features"))
store.materialize(now - timedelta(days=2), now)

# 2. What the model is trained on is what will be served: the same views, the same function.
service = store.get_feature_service("progression")
asked = table[["patient_id", *VISIT]].assign(event_timestamp=now)
rows = store.get_historical_features(entity_df=asked, features=service).to_df().sort_values("patient_id")
columns = [*VISIT, *LABS.values(), "ldl_share", "bmi_glucose"]
rows = rows[columns].reset_index(drop=True)
model = LGBMRegressor(n_estimators=60, random_state=0, verbose=-1).fit(rows, progressed)

# 3. Registered, with the rows that `platform features compare` holds serving against.
logged = mlflow.lightgbm.log_model(
    model,
    name="model",
    registered_model_name="progression",
    signature=mlflow.models.infer_signature(rows, model.predict(rows)),
    input_example=rows.head(200),
    pip_requirements=["lightgbm", "scikit-learn"],
)
log_sample(logged.model_id, rows)
print("Registered. Next: platform deploy progression")
