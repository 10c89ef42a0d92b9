"""Many texts: files to parts, and columns of data frames, with the same bits on every engine.

`Embedder` is one picklable object for Dask, Ray, Spark and plain loops; `Job` is what
`modernbert embed IN... --out DIR` runs. No engine is imported before it is used.
Imports: files, text, tasks.
"""

from __future__ import annotations

from .embedder import Embedder
from .frames import embed_frame, embed_spark
from .job import Job

__all__ = ["Embedder", "Job", "embed_frame", "embed_spark"]
