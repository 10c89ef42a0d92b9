"""Ray and Spark, as they are shipped, give the bits of a plain loop: by hand, for they are large.

pip install ray pyspark; pytest -m "extras and soak" tests/bulk/test_bulk_engines.py
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from refimpl.bulk import Embedder, Job

pytestmark = [pytest.mark.extras, pytest.mark.soak]
TESTS = Path(__file__).resolve().parents[1]

RAY = """
import ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
starts = range(0, 400, 100)
tables = [pa.table({"text": texts[i : i + 100], "n": range(i, i + 100)}) for i in starts]
found = ray.data.from_arrow(tables).map_batches(
    Embedder, fn_constructor_kwargs={"folder": folder}, batch_format="pyarrow", batch_size=64,
    compute=ray.data.ActorPoolStrategy(size=2), num_cpus=1,
)
rows = sorted(found.take_all(), key=lambda row: row["n"])
task = ray.remote(lambda part, k: part(k))
job.run(map=lambda part, which: ray.get([task.remote(part, k) for k in which]))
"""
SPARK = """
from pyspark.sql import SparkSession
from refimpl.bulk import embed_spark
made = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
made = made.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
spark = made.getOrCreate()
frame = spark.createDataFrame(list(enumerate(texts)), "n int, text string").repartition(4)
rows = sorted(embed_spark(frame, folder).collect(), key=lambda row: row["n"])
sc = spark.sparkContext
job.run(map=lambda part, which: sc.parallelize(which, len(which)).map(part).collect())
"""
BOTH = """
import sys, numpy as np, pyarrow as pa, refimpl
from refimpl.bulk import Embedder, Job
from support.text_folders import some_texts
folder, out, *files = sys.argv[1:]
texts, job = some_texts(400), Job.plan(files, out, Embedder(folder), id="id", rows=37)
{}
vectors = np.stack([row["embedding"] for row in rows]).astype(np.float32)
assert np.array_equal(vectors, refimpl.SentenceEncoder(folder).encode(texts))
"""


@pytest.mark.parametrize(("package", "does"), [("ray", RAY), ("pyspark", SPARK)])
def test_engine_gives_the_same_bits(files, folder, tmp_path, package, does):
    pytest.importorskip(package)
    Job.plan(files, str(tmp_path / "plain"), Embedder(folder), id="id", rows=37).run()
    paths = os.pathsep.join([os.environ["PYTHONPATH"], str(TESTS)])
    env = {**os.environ, "PYTHONPATH": paths, "PYSPARK_PYTHON": sys.executable,
           "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}  # fmt: skip
    command = [sys.executable, "-c", BOTH.format(does), folder, str(tmp_path / package), *files]
    subprocess.run(command, check=True, env=env, timeout=600)

    def digests(name):
        parts = sorted((tmp_path / name).glob("0*.parquet"))
        return [(p.name, hashlib.sha256(p.read_bytes()).hexdigest()) for p in parts]

    assert digests(package) == digests("plain") != []
