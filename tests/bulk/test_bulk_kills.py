"""SIGKILL at random moments to a worker, the driver or the process group of Dask, Ray and Spark.

pip install distributed ray pyspark; pytest -m "extras and soak" tests/bulk/test_bulk_kills.py

What is killed is resumed at once, beside what the dead run has left running; the parts are those of
a plain loop, to the byte. (The command, which is one process, is killed in test_bulk_job.py.)
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.readme import ROOT

from refimpl.bulk import Embedder, Job

pytestmark = [pytest.mark.extras, pytest.mark.soak]
ROWS, KILLS = 9, 100
STUCK = 120.0  # seconds without a part, after which a run is killed with all that it started
JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # starts sooner, and is killed soon

DRIVER = """
import sys
from refimpl.bulk import Embedder, Job
def run(map):
    folder, out, rows, *files = sys.argv[1:]
    job = Job.plan(files, out, Embedder(folder, threads=1), id="id", rows=int(rows))
    print(job.run(resume=True, map=map))
if __name__ == "__main__":
"""
DASK = """
    import dask
    run(lambda part, which: dask.compute(
        [dask.delayed(part)(k) for k in which], scheduler="{scheduler}", num_workers=2)[0])
"""
DISTRIBUTED = """
    from distributed import Client
    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        run(lambda part, which: client.gather(client.map(part, which)))
"""
RAY = """
    import ray
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
             object_store_memory=100 * 2**20)
    task = ray.remote(lambda part, k: part(k))
    run(lambda part, which: ray.get([task.remote(part, k) for k in which]))
"""
SPARK = """
    from pyspark.sql import SparkSession
    made = SparkSession.builder.master("local[2,8]").config("spark.ui.enabled", "false")
    sc = made.getOrCreate().sparkContext
    run(lambda part, which: sc.parallelize(which, len(which)).map(part).collect())
"""
# Engine -> its package, its driver, and what the command line of a worker holds.
ENGINES = {
    "dask-threads": ("dask", DASK.format(scheduler="threads"), None),
    "dask-processes": ("dask", DASK.format(scheduler="processes"), "spawn_main"),
    "distributed": ("distributed", DISTRIBUTED, "spawn_main"),
    "ray": ("ray", RAY, "ray::"),
    "spark": ("pyspark", SPARK, "pyspark.daemon"),
}
MOMENTS = [
    (engine, victim)
    for engine, (_, _, worker) in ENGINES.items()
    for victim in ("worker", "driver", "group")
    if victim != "worker" or worker
]


class Run:
    """A driver with all that it starts, which a word in the environment marks."""

    def __init__(self, engine, script, folder, out, files):
        self.mark = f"REFIMPL_KILLS={os.getpid()}-{time.monotonic_ns()}"
        name, _, value = self.mark.partition("=")
        paths = os.pathsep.join([os.environ["PYTHONPATH"], str(ROOT / "tests")])
        env = {**os.environ, name: value, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1",
               "PYSPARK_PYTHON": sys.executable, "RAY_USAGE_STATS_ENABLED": "0",
               "SPARK_LOCAL_IP": "127.0.0.1", "JAVA_TOOL_OPTIONS": JAVA}  # fmt: skip
        command = [sys.executable, str(script), folder, str(out), str(ROWS), *files]
        self.log = out.with_suffix(".log").open("w")
        self.driver = subprocess.Popen(
            command, env=env, stdout=self.log, stderr=self.log, start_new_session=True
        )
        self.engine, self.worker = engine, ENGINES[engine][2]

    def pids(self, having=""):
        """Of living processes of this run with that in their command line."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                marked = self.mark.encode() in (path / "environ").read_bytes().split(b"\0")
                if marked and having.encode() in (path / "cmdline").read_bytes():
                    found.append(int(path.name))
            except OSError:
                continue
        return found

    def kill(self, victim, rng):
        """Whether there was somebody to kill."""
        if self.driver.poll() is not None:
            return False
        if victim == "worker":
            some = [pid for pid in self.pids(self.worker) if pid != self.driver.pid]
            if not some:
                return False
            os.kill(rng.choice(some), signal.SIGKILL)
        elif victim == "driver":
            self.driver.kill()
        else:
            os.killpg(self.driver.pid, signal.SIGKILL)
        return True

    def clear(self):
        """End what is left."""
        end = time.monotonic() + 60
        while left := self.pids():
            assert time.monotonic() < end
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.01)
        self.driver.wait()
        self.log.close()


def parts(out):
    return list(Path(out).glob("[0-9]*.parquet"))


def digests(out):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in parts(out)}


@pytest.mark.parametrize(("engine", "victim"), MOMENTS)
def test_what_is_killed_is_resumed_to_the_same_bytes(files, folder, tmp_path, engine, victim):
    package, does, _ = ENGINES[engine]
    pytest.importorskip(package)
    (tmp_path / "driver.py").write_text(DRIVER + does)
    Job.plan(files, str(tmp_path / "plain"), Embedder(folder, threads=1), id="id", rows=ROWS).run()
    wanted = digests(tmp_path / "plain")
    kills = int(os.environ.get("REFIMPL_TEST_KILLS", KILLS))
    rng = random.Random(f"{engine} {victim} {kills}")
    killed = finished = beside = stuck = 0
    runs = []
    try:
        while killed < kills:
            out = tmp_path / f"{finished}"
            run = Run(engine, tmp_path / "driver.py", folder, out, files)
            runs.append(run)
            there = len(parts(out))
            while run.driver.poll() is None:  # several workers may be killed of one run
                more, end = rng.randrange(12), time.monotonic() + STUCK
                while run.driver.poll() is None and len(parts(out)) < there + more:
                    time.sleep(0.002)
                    if time.monotonic() > end:  # the pool of a dead worker may wait for its lock
                        run.kill("group", rng)
                        run.driver.wait(60)
                        stuck += 1
                        break
                time.sleep(rng.random() * 0.05)
                if run.kill(victim, rng):
                    killed += 1
                    beside += len(parts(out)) > there
                    if victim != "worker":
                        run.driver.wait(60)
                    there = len(parts(out))
                if killed >= kills:
                    break
                time.sleep(0.01)
            assert digests(out).items() <= wanted.items()
            for before in runs[:-1]:
                before.clear()
            runs = runs[-1:]
            if len(digests(out)) == len(wanted):
                finished += 1
        for run in runs:
            run.clear()
        out = tmp_path / f"{finished}"
        runs = [Run(engine, tmp_path / "driver.py", folder, out, files)]
        assert runs[0].driver.wait(600) == 0, out.with_suffix(".log").read_text()
    finally:
        for run in runs:
            run.clear()
    for i in range(finished + 1):
        assert digests(tmp_path / f"{i}") == wanted
    assert not list(out.glob(".*")) and beside >= kills // 10
    told = f"{engine}: {killed} SIGKILLs to {victim}, {beside} after parts of their run"
    told += f", and {stuck} to runs that hung" * (stuck > 0)
    print(f"{told}; {finished + 1} jobs of {len(wanted)} parts equal to the byte")
