# Longer than 300 lines because it is a list: one line or two for each of a hundred models.
"""The models of the table test: estimators and pipelines over scikit-learn's bundled data, as a user would train them.

`CASES` names them; the table in platform/docs/models.md has one line for each.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import catboost
import lightgbm
import numpy as np
import pandas as pd
import xgboost
from sklearn import cluster, covariance, discriminant_analysis, dummy, ensemble, linear_model, naive_bayes
from sklearn import datasets as bundled
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA, KernelPCA, TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import RFE, SelectFromModel, SelectKBest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor, NearestCentroid, RadiusNeighborsClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR, NuSVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier

ROWS = 150


class Table(NamedTuple):
    """Columns and what is to be predicted. `about`: how the docs call it."""

    about: str
    columns: pd.DataFrame
    targets: Any


class Case(NamedTuple):
    """A model to train on a table."""

    model: Any
    table: str


class Doubling(BaseEstimator):  # type: ignore[misc]
    """A user's own transformer, which nobody has a converter for."""

    def fit(self, _: Any, __: Any = None) -> "Doubling":
        return self

    def transform(self, columns: Any) -> Any:
        """Each value twice."""
        return columns * 2


def tables() -> Mapping[str, Table]:
    """Small tables from scikit-learn's bundled data sets."""
    random = np.random.default_rng(0)
    flowers, kinds = bundled.load_iris(return_X_y=True, as_frame=True)
    flowers.columns = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    cells, tumour = bundled.load_breast_cancer(return_X_y=True, as_frame=True)
    cells = cells.iloc[: 2 * ROWS, :8].rename(columns=lambda name: str(name).replace(" ", "_"))
    patients, progress = bundled.load_diabetes(return_X_y=True, as_frame=True)
    patients, progress = patients.iloc[:ROWS, :6], progress[:ROWS]
    holes = cells.mask(random.random(cells.shape) < 0.1)
    shape = np.select([flowers["petal_width"] < 0.6, flowers["sepal_width"] > 3.3], ["thin", "wide"], "usual")
    shape[::31] = "odd"
    mixed = flowers[["sepal_length", "sepal_width"]].assign(
        shape=shape.astype(object), rank=random.integers(0, 5, ROWS)
    )
    codes = flowers.assign(shape=pd.factorize(shape)[0], corner=random.integers(0, 70, ROWS).astype(float))
    codes.loc[::13, "corner"] = np.nan
    texts = [bundled.load_iris().DESCR, bundled.load_wine().DESCR, bundled.load_diabetes().DESCR]
    lines = [(line.strip(), i) for i, text in enumerate(texts) for line in text.splitlines() if len(line.strip()) > 25]
    text = pd.DataFrame({"line": np.array([line for line, _ in lines], dtype=object)}).assign(
        length=[float(len(line)) for line, _ in lines]
    )
    return {
        "numbers": Table("numbers", flowers, kinds),
        "two": Table("numbers, two classes", cells, tumour[: 2 * ROWS]),
        "words": Table("numbers, classes in words", flowers, np.array(["setosa", "versicolor", "virginica"])[kinds]),
        "amount": Table("numbers, an amount", patients, progress),
        "holes": Table("numbers with missing values", holes, tumour[: 2 * ROWS]),
        "mixed": Table("numbers and categories", mixed, kinds),
        "codes": Table("numbers and categories as codes, with missing values", codes, (kinds > 0).astype(int)),
        "text": Table("text and a number", text, np.array([i for _, i in lines])),
        "nothing": Table("numbers, no target", flowers, None),
    }


def logistic() -> linear_model.LogisticRegression:
    """What stands at the end of most pipelines here."""
    return linear_model.LogisticRegression(max_iter=1000)


def scaled(model: Any) -> Any:
    return make_pipeline(StandardScaler(), model)


def after(step: Any) -> Any:
    return make_pipeline(step, logistic())


def by_category(encoder: Any, last: Any = None) -> Any:
    columns = make_column_transformer((encoder, ["shape"]), remainder="passthrough")
    return make_pipeline(columns, logistic() if last is None else last)


def by_word(vectoriser: Any) -> Any:
    columns = make_column_transformer((vectoriser, "line"), (StandardScaler(), ["length"]))
    return make_pipeline(columns, logistic())


def forest(**options: Any) -> ensemble.RandomForestClassifier:
    return ensemble.RandomForestClassifier(5, random_state=0, **options)


IGNORE = OneHotEncoder(handle_unknown="ignore")
CLASSIFIERS: Mapping[str, Any] = {
    "LogisticRegression": scaled(logistic()),
    "LogisticRegressionCV": linear_model.LogisticRegressionCV(
        Cs=2, max_iter=1000, l1_ratios=(0.0,), use_legacy_attributes=False
    ),
    "SGDClassifier": scaled(linear_model.SGDClassifier(loss="log_loss", random_state=0)),
    "Perceptron": scaled(linear_model.Perceptron(random_state=0)),
    "RidgeClassifier": linear_model.RidgeClassifier(),
    "LinearSVC": scaled(LinearSVC(random_state=0)),
    "SVC": scaled(SVC()),
    "NuSVC": scaled(NuSVC(nu=0.2)),
    "GaussianNB": naive_bayes.GaussianNB(),
    "BernoulliNB": naive_bayes.BernoulliNB(),
    "MultinomialNB": naive_bayes.MultinomialNB(),
    "ComplementNB": naive_bayes.ComplementNB(),
    "LinearDiscriminantAnalysis": discriminant_analysis.LinearDiscriminantAnalysis(),
    "QuadraticDiscriminantAnalysis": discriminant_analysis.QuadraticDiscriminantAnalysis(),
    "DecisionTreeClassifier": DecisionTreeClassifier(random_state=0),
    "ExtraTreeClassifier": ExtraTreeClassifier(random_state=0),
    "RandomForestClassifier": forest(),
    "ExtraTreesClassifier": ensemble.ExtraTreesClassifier(5, random_state=0),
    "GradientBoostingClassifier": ensemble.GradientBoostingClassifier(n_estimators=5),
    "HistGradientBoostingClassifier": ensemble.HistGradientBoostingClassifier(max_iter=5),
    "AdaBoostClassifier": ensemble.AdaBoostClassifier(n_estimators=5, random_state=0),
    "BaggingClassifier": ensemble.BaggingClassifier(n_estimators=4, random_state=0),
    "VotingClassifier": ensemble.VotingClassifier([("a", logistic()), ("b", forest())], voting="soft"),
    "StackingClassifier": ensemble.StackingClassifier([("a", logistic()), ("b", forest())], cv=2),
    "CalibratedClassifierCV": CalibratedClassifierCV(forest(), cv=2),
    "OneVsRestClassifier": OneVsRestClassifier(logistic()),
    "OneVsOneClassifier": scaled(OneVsOneClassifier(LinearSVC(random_state=0))),
    "GridSearchCV": GridSearchCV(logistic(), {"C": [0.1, 1.0]}, cv=2),
    "MLPClassifier": scaled(MLPClassifier(hidden_layer_sizes=(8,), max_iter=40, random_state=0)),
    "DummyClassifier": dummy.DummyClassifier(),
    "NearestCentroid": NearestCentroid(),
    "KNeighborsClassifier": KNeighborsClassifier(),
    "RadiusNeighborsClassifier": RadiusNeighborsClassifier(2.0),
    "MinMaxScaler": after(MinMaxScaler(clip=True)),
    "MaxAbsScaler": after(MaxAbsScaler()),
    "RobustScaler": after(RobustScaler()),
    "Normalizer": after(Normalizer()),
    "PowerTransformer": after(PowerTransformer()),
    "QuantileTransformer": after(QuantileTransformer(n_quantiles=20)),
    "KBinsDiscretizer": after(KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf")),
    "PolynomialFeatures": after(PolynomialFeatures(2)),
    "SplineTransformer": after(SplineTransformer()),
    "FunctionTransformer": after(FunctionTransformer(np.log1p)),
    "PCA": after(PCA(2)),
    "KernelPCA": after(KernelPCA(2)),
    "TruncatedSVD": after(TruncatedSVD(2, random_state=0)),
    "SelectKBest": after(SelectKBest(k=2)),
    "SelectFromModel": after(SelectFromModel(forest())),
    "RFE": after(RFE(logistic(), n_features_to_select=2)),
    "FeatureUnion": after(make_union(PCA(2), StandardScaler())),
    "a class of one's own": after(Doubling()),
}
OTHERS: Mapping[str, Case] = {
    "LogisticRegression, words": Case(scaled(logistic()), "words"),
    "RandomForestClassifier, words": Case(forest(), "words"),
    "GradientBoostingClassifier, two": Case(ensemble.GradientBoostingClassifier(n_estimators=5), "two"),
    "SimpleImputer": Case(make_pipeline(SimpleImputer(strategy="median"), scaled(logistic())), "holes"),
    "SimpleImputer, indicator": Case(make_pipeline(SimpleImputer(add_indicator=True), forest()), "holes"),
    "KNNImputer": Case(make_pipeline(KNNImputer(), forest()), "holes"),
    "RandomForestClassifier, missing": Case(forest(), "holes"),
    "HistGradientBoostingClassifier, missing": Case(ensemble.HistGradientBoostingClassifier(max_iter=5), "holes"),
    "OneHotEncoder": Case(by_category(IGNORE), "mixed"),
    "OneHotEncoder, unknown refused": Case(by_category(OneHotEncoder()), "mixed"),
    "OneHotEncoder, rare ones together": Case(
        by_category(OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=10)), "mixed"
    ),
    "OneHotEncoder of text and whole numbers": Case(
        make_pipeline(
            make_column_transformer((IGNORE, ["shape", "rank"]), (StandardScaler(), ["sepal_length"])), logistic()
        ),
        "mixed",
    ),
    "OrdinalEncoder": Case(
        by_category(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), forest()), "mixed"
    ),
    "TargetEncoder": Case(by_category(TargetEncoder(random_state=0)), "mixed"),
    "SimpleImputer, text": Case(by_category(make_pipeline(SimpleImputer(strategy="most_frequent"), IGNORE)), "mixed"),
    "HistGradientBoostingClassifier, categories": Case(
        by_category(OrdinalEncoder(), ensemble.HistGradientBoostingClassifier(max_iter=5, categorical_features=[0])),
        "mixed",
    ),
    "CountVectorizer": Case(by_word(CountVectorizer(token_pattern="[a-zA-Z]+")), "text"),
    "TfidfVectorizer": Case(by_word(TfidfVectorizer(token_pattern="[a-z0-9]+", ngram_range=(1, 2))), "text"),
    "TfidfVectorizer, default tokens": Case(by_word(TfidfVectorizer()), "text"),
    "HashingVectorizer": Case(by_word(HashingVectorizer(n_features=64)), "text"),
}

PAIRS = [("a", linear_model.Ridge()), ("b", ensemble.RandomForestRegressor(4, random_state=0))]
REGRESSORS: Mapping[str, Any] = {
    "LinearRegression": linear_model.LinearRegression(),
    "Ridge": scaled(linear_model.Ridge()),
    "Lasso": linear_model.Lasso(0.1),
    "ElasticNet": linear_model.ElasticNet(0.01),
    "Lars": linear_model.Lars(),
    "BayesianRidge": linear_model.BayesianRidge(),
    "HuberRegressor": scaled(linear_model.HuberRegressor(max_iter=1000)),
    "QuantileRegressor": linear_model.QuantileRegressor(alpha=0.01),
    "PoissonRegressor": linear_model.PoissonRegressor(),
    "TweedieRegressor": linear_model.TweedieRegressor(power=1.5),
    "SGDRegressor": scaled(linear_model.SGDRegressor(random_state=0)),
    "RANSACRegressor": linear_model.RANSACRegressor(random_state=0),
    "LinearSVR": scaled(LinearSVR(random_state=0)),
    "SVR": scaled(SVR()),
    "KernelRidge": KernelRidge(kernel="rbf"),
    "GaussianProcessRegressor": GaussianProcessRegressor(alpha=0.1),
    "PLSRegression": PLSRegression(2),
    "DecisionTreeRegressor": DecisionTreeRegressor(random_state=0),
    "RandomForestRegressor": ensemble.RandomForestRegressor(4, random_state=0),
    "ExtraTreesRegressor": ensemble.ExtraTreesRegressor(4, random_state=0),
    "GradientBoostingRegressor": ensemble.GradientBoostingRegressor(n_estimators=5),
    "HistGradientBoostingRegressor": ensemble.HistGradientBoostingRegressor(max_iter=5),
    "AdaBoostRegressor": ensemble.AdaBoostRegressor(n_estimators=4, random_state=0),
    "VotingRegressor": ensemble.VotingRegressor(PAIRS),
    "StackingRegressor": ensemble.StackingRegressor(PAIRS, cv=2),
    "MLPRegressor": scaled(MLPRegressor(hidden_layer_sizes=(8,), max_iter=30, random_state=0)),
    "DummyRegressor": dummy.DummyRegressor(),
    "TransformedTargetRegressor": TransformedTargetRegressor(
        linear_model.Ridge(), func=np.log, inverse_func=np.exp, check_inverse=False
    ),
}

WITHOUT_TARGETS: Mapping[str, Any] = {
    "IsolationForest": ensemble.IsolationForest(n_estimators=6, random_state=0),
    "OneClassSVM": scaled(OneClassSVM(nu=0.1)),
    "EllipticEnvelope": covariance.EllipticEnvelope(random_state=0),
    "SGDOneClassSVM": scaled(linear_model.SGDOneClassSVM(random_state=0)),
    "LocalOutlierFactor": LocalOutlierFactor(novelty=True),
    "KMeans": scaled(cluster.KMeans(3, n_init=1, random_state=0)),
    "MiniBatchKMeans": cluster.MiniBatchKMeans(3, n_init=1, random_state=0),
    "Birch": cluster.Birch(n_clusters=3),
}

LIGHT: Mapping[str, Any] = {"n_estimators": 6, "num_leaves": 7, "verbose": -1, "n_jobs": 1, "min_data_per_group": 5}
EXTREME: Mapping[str, Any] = {"n_estimators": 6, "max_depth": 3, "n_jobs": 1}
CAT: Mapping[str, Any] = {"iterations": 6, "depth": 3, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
BOOSTERS: Mapping[str, Callable[..., Any]] = {
    "LGBMClassifier": lambda: lightgbm.LGBMClassifier(**LIGHT),
    "XGBClassifier": lambda: xgboost.XGBClassifier(**EXTREME),
    "CatBoostClassifier": lambda: catboost.CatBoostClassifier(**CAT),
}
PLACES = {"": "numbers", ", two": "two", ", missing": "holes"}
BOOSTED: Mapping[str, Case] = {
    **{f"{name}{more}": Case(make(), table) for name, make in BOOSTERS.items() for more, table in PLACES.items()},
    **{f"{name} behind OneHotEncoder": Case(by_category(IGNORE, make()), "mixed") for name, make in BOOSTERS.items()},
    "LGBMRegressor": Case(lightgbm.LGBMRegressor(**LIGHT), "amount"),
    "XGBRegressor": Case(xgboost.XGBRegressor(**EXTREME, base_score=100.0), "amount"),
    "CatBoostRegressor": Case(catboost.CatBoostRegressor(**CAT), "amount"),
    "LGBMClassifier, categories": Case(
        lightgbm.LGBMClassifier(**LIGHT, categorical_feature=[4, 5], cat_smooth=1.0), "codes"
    ),
    "XGBClassifier, categories": Case(
        xgboost.XGBClassifier(**EXTREME, enable_categorical=True, feature_types=list("qqqqcc")), "codes"
    ),
    "CatBoostClassifier, categories": Case(catboost.CatBoostClassifier(**CAT, cat_features=["shape"]), "codes"),
    "XGBRFClassifier": Case(xgboost.XGBRFClassifier(**EXTREME), "two"),
}


CASES: Mapping[str, Case] = {
    **{name: Case(model, "numbers") for name, model in CLASSIFIERS.items()},
    **OTHERS,
    **{name: Case(model, "amount") for name, model in REGRESSORS.items()},
    **{name: Case(model, "nothing") for name, model in WITHOUT_TARGETS.items()},
    **BOOSTED,
}
