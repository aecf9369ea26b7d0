"""A guard in Spark: as a pandas function of a column, and as a function of tables."""

from __future__ import annotations

import os
import shutil
import sys
from io import BytesIO
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from oodream.deploy.batch import SPARK_SCHEMA, GuardMap
from tests.helpers.guarded import clothes, guard

sql = pytest.importorskip("pyspark.sql")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java"),
]
N, DAMAGED = 24, 5


@pytest.fixture(scope="module")
def spark():
    place = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
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
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("guard")
    guard().save(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(spark):
    rows = []
    for i, pixels in enumerate(clothes()[1].batch(range(N))):
        buffer = BytesIO()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, "png")
        rows.append((i, b"no picture" if i == DAMAGED else buffer.getvalue()))
    return spark.createDataFrame(rows, "id long, content binary")


def check(answers) -> None:
    predictions = guard().predict(clothes()[1].subset(slice(N)))
    assert [row.id for row in answers] == list(range(N))
    for i, (row, prediction) in enumerate(zip(answers, predictions, strict=True)):
        if i == DAMAGED:
            assert "cannot be read" in row.error
        else:
            assert row.score == pytest.approx(prediction.score, rel=1e-4)
            assert (row.answer, row.error) == (prediction.answer, "")


def test_a_pandas_function(spark, pictures, folder):
    score = GuardMap(folder=folder, column="content")

    @sql.functions.pandas_udf(SPARK_SCHEMA)
    def scored(content: pd.Series) -> pd.DataFrame:
        return pd.DataFrame(score({"content": content}))

    check(pictures.select("id", scored("content").alias("a")).select("id", "a.*").orderBy("id").collect())


def test_a_function_of_tables(spark, pictures, folder):
    score = GuardMap(folder=folder, column="content", keep=("id",))

    def scored(tables):
        return (pd.DataFrame(score(table)) for table in tables)

    check(pictures.mapInPandas(scored, f"id long, {SPARK_SCHEMA}").orderBy("id").collect())
