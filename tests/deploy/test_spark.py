"""A guard in Spark: as a pandas function of a column, and as a function of tables."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from oodream.deploy.batch import SPARK_SCHEMA, GuardMap
from tests.helpers.guarded import clothes, encoded, guard

sql = pytest.importorskip("pyspark.sql")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java"),
]
N, DAMAGED = 24, 5


@pytest.fixture(scope="module")
def spark():
    place = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), *sys.path]))
    settings = {
        "spark.ui.enabled": "false", "spark.pyspark.python": sys.executable,
        "spark.executorEnv.PYTHONPATH": place, "spark.sql.execution.arrow.maxRecordsPerBatch": "7",
        "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1",
    }  # fmt: skip
    builder = sql.SparkSession.builder.master("local[1]")
    for key, value in settings.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    yield session
    session.stop()


@pytest.fixture(scope="module")
def pictures(spark):
    return spark.createDataFrame(list(enumerate(encoded(N, {DAMAGED}))), "id long, content binary")


def check(answers) -> None:
    predictions = guard().predict(clothes()[1].subset(slice(N)))
    assert [row.id for row in answers] == list(range(N))
    for i, (row, prediction) in enumerate(zip(answers, predictions, strict=True)):
        if i == DAMAGED:
            assert "cannot be read" in row.error
        else:
            assert row.score == pytest.approx(prediction.score, rel=1e-4)
            assert (row.answer, row.error) == (prediction.answer, "")


def test_a_pandas_function(spark, pictures, guard_folder):
    score = GuardMap(folder=guard_folder, column="content")

    @sql.functions.pandas_udf(SPARK_SCHEMA)
    def scored(content: pd.Series) -> pd.DataFrame:
        return pd.DataFrame(score({"content": content}))

    check(pictures.select("id", scored("content").alias("a")).select("id", "a.*").orderBy("id").collect())


def test_a_function_of_tables(spark, pictures, guard_folder):
    score = GuardMap(folder=guard_folder, column="content", keep=("id",))

    def scored(tables):
        return (pd.DataFrame(score(table)) for table in tables)

    check(pictures.mapInPandas(scored, f"id long, {SPARK_SCHEMA}").orderBy("id").collect())
