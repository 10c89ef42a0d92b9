"""Many texts: files to parts, and columns of data frames, with the same bits on every engine.

`Embedder` is one picklable object for Dask, Ray, Spark and plain loops, and so are `Classifier`,
`Tagger`, `Ranker` and `Scorer`; `Job` is what `modernbert embed FILE... --out FOLDER` runs, and
`classify`, `ner` and `rerank`. No engine is imported before it is used.
Imports: files, text, tasks.
"""

from __future__ import annotations

from .embedder import Embedder
from .frames import embed_frame, embed_spark
from .job import Job
from .scorers import Classifier, Ranker, Scorer, Tagger

__all__ = [
    "Classifier",
    "Embedder",
    "Job",
    "Ranker",
    "Scorer",
    "Tagger",
    "embed_frame",
    "embed_spark",
]
