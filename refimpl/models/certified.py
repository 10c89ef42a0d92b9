"""Whether a model that computes in int8 has a certificate, told once for each folder.

The certificate says what int8 costs a model (files/certificate.py, `modernbert quantize`) and names
the matrices that are kept, and what in. One of other weights is told, and what it names is kept.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache

import numpy as np

from ..errors import UncertifiedWarning
from ..files.certificate import Certificate, digest_of_weights, read_certificate
from ..files.folder import ModelFolder
from ..reference.config import ModernBertConfig
from ..reference.int8 import KEPT_IN, Kept, matrix_names


def certified(
    config: ModernBertConfig, params: Mapping[str, np.ndarray], source: ModelFolder | None
) -> tuple[Certificate | None, Kept]:
    """The certificate of these weights, None without one, and what is kept. ModelFormatError."""
    layers = config.num_hidden_layers
    found = None if source is None else read_certificate(source, layers)
    if found is None:
        _tell_once(f"{'these weights' if source is None else source.path} in int8: not measured")
        return None, {}
    if found.weights != digest_of_weights(params, layers):
        assert source is not None
        _tell_once(f"{source.path} in int8: its int8.json was measured on other weights")
        return None, found.kept
    return found, found.kept


@cache
def _tell_once(what: str) -> None:
    warnings.warn(
        f"{what}; `modernbert quantize` measures what it costs, and says so in its folder",
        UncertifiedWarning,
        stacklevel=5,
    )


def check_kept(config: ModernBertConfig, kept: Kept) -> None:
    """ValueError for a name that is no matrix of the model, or what none is kept in."""
    known = matrix_names(config.num_hidden_layers)
    if not isinstance(kept, Mapping):
        raise ValueError(f"kept is a {type(kept).__name__}; it must map matrices to a dtype")
    for name, dtype in kept.items():
        if name not in known:
            raise ValueError(f"kept has {name!r}, no matrix of this model; one is {known[-1:]}")
        if dtype not in KEPT_IN:
            raise ValueError(f"kept[{name!r}] is {dtype!r}; it must be {' or '.join(KEPT_IN)}")
