"""ModernBERT as an object: config, weights and backend, with checks in front and dicts behind.

    model = ModernBERT.from_pretrained(folder)
    model({"input_ids": ids, "attention_mask": mask})   -> {"last_hidden_state": ..., ...}

The encoder; with a head on top it is task_model.py's. The mathematics is in encoder.py; what may be
handed in is decided in inputs.py, what a folder may hold in checkpoint.py, how parameters are held
in stored.py. Long because construction, use and saving of a model are one public face.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np

from ..backends import backend as backends
from ..backends.engine import Engine, LazyEngine
from ..backends.pack import FromPack
from ..errors import HubError
from ..files.certificate import Certificate
from ..files.checkpoint import read_checkpoint, write_checkpoint
from ..files.folder import ModelFolder
from ..files.hub import BUNDLED, OFFICIAL_CHECKPOINTS, resolve
from ..files.stored import StoredParams, stored
from ..nlp.keras_names import KerasNames, check_training, refuse_any
from ..reference import ops as equations
from ..reference.config import (
    KERAS_NAMES,
    VARIANTS,
    ModernBertConfig,
    canonical_names,
    lost_in_float32,
)
from ..reference.encoder import Params, Tap, encode, no_tap
from ..reference.heads import Head
from ..reference.int8 import Int8Ops, Int8Params, Kept
from ..reference.numerics import underflow_is_zero
from ..reference.params import Shapes, count, encoder_shapes, initialise
from ..reference.replacing import replaced, warn_uncalled
from ..reference.sentence import SentenceHead
from ..reference.taps import Recorder, attention_maps
from .certified import certified, check_kept
from .inputs import Inputs, check_inputs, check_packed
from .lent import LentByTraining
from .summary import model_in_words, parameter_table

Array = np.ndarray
Folder = str | os.PathLike[str]
Ops = Mapping[str, Callable[..., Any]] | Any

# Config fields that decide which tensors the encoder has, and their shapes.
SHAPING = {
    *("vocab_size", "type_vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("norm_bias", "attention_bias", "mlp_bias"),
}


class ModernBERT(LentByTraining, KerasNames):
    """The encoder.

    config: ModernBertConfig; params: name -> array (params.py), all of one float dtype; folder:
    where they came from, or None. dtype: what to compute in, None for that of params. kept:
    matrices that int8 keeps, "layers.0.mlp.Wo" -> "bfloat16" or "float32"; None for what int8.json
    of the source says, which a warning tells the lack of.

    `.params` shows them read-only in `.dtype`, that of all arrays that go in and come out: float64
    where float64 is computed in, else float32. `.compute_dtype` is what the engine computes in, as
    `load` takes it: it rounds its own copy of the matrices and not `.params`, which keep the values
    that were handed in, or are in the file (stored.py: nothing is widened before it is looked at).
    `.certificate`: of int8, what it costs this model (files/certificate.py); None without one.
    The engine packs that copy at the first call, and sees no change of an array after that; engine:
    one over a pack of these params (pack.py).
    """

    MODEL_VARIANTS: ClassVar[Mapping[str, Mapping[str, Any]]] = VARIANTS
    axes: tuple[str, ...] = ("batch", "seq")
    sentence_head: SentenceHead | None = None
    engine_head: SentenceHead | Head | None = None  # what the engine puts behind the encoder

    if not TYPE_CHECKING:  # the signature is __init__'s

        def __new__(cls, *args: Any, **options: Any) -> ModernBERT:
            refuse_keras_names(options)
            return super().__new__(cls)

    def __init__(
        self,
        config: ModernBertConfig,
        params: Mapping[str, Array],
        *,
        backend: str = "auto",
        dtype: str | None = None,
        num_threads: int | None = None,
        source: ModelFolder | None = None,
        kept: Kept | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.config, self.source = config, source
        held = check_params(params, self.shapes())
        self.backend, self.compute_dtype = backends.resolve(
            backend, dtype or held.dtype.name, num_threads
        )
        self.dtype = backends.array_dtype(self.compute_dtype)
        if self.dtype != held.dtype:
            raise ValueError(
                f"dtype is {self.compute_dtype!r}, which takes params in {self.dtype}; these are "
                f"in {held.dtype}"
            )
        if self.dtype == np.float32 and (lost := lost_in_float32(config)):
            raise ValueError(lost)
        self.certificate: Certificate | None = None
        if self.compute_dtype == "int8" and kept is None:
            self.certificate, kept = certified(config, held, source)
        check_kept(config, kept or {})
        by_engine = self.backend != "numpy"
        unkept = {*encoder_shapes(config), "decoder.weight"} if by_engine else ()
        self.params = StoredParams(held.stored, self.dtype, unkept)
        self._engine = (
            LazyEngine(
                config,
                self.params.stored,
                num_threads,
                self.compute_dtype,
                self.engine_head,
                kept,
                engine,
                self.backend,
            )
            if by_engine
            else None
        )
        # What numpy computes with: in int8 the matrices of the layers are integers.
        self._computed: Params = self.params
        if self.compute_dtype == "int8" and not by_engine:
            self._computed = Int8Params(self.params, kept)

    # -- construction -----------------------------------------------------------------------------

    @classmethod
    def from_variant(
        cls,
        name: str,
        pretrained: bool | Folder = False,
        weights_dataset: None = None,
        cache_dir: Folder | None = None,
        *,
        seed: int = 0,
        backend: str = "auto",
        dtype: str = "float32",
        num_threads: int | None = None,
        **overrides: Any,
    ) -> ModernBERT:
        """A variant with random weights, or, with `pretrained`, those of a checkpoint.

        name: tiny, base or large. pretrained: True for the official checkpoint (from the local hub
        cache, else the network; tiny is bundled), or a folder or hub id. Overrides are config
        fields, under their own or the Keras system's names; they change the config before random
        initialisation, and must leave a checkpoint's tensors fitting. Never falls back to random
        weights. Raises ValueError, TypeError, HubError, ModelFormatError.
        """
        config = ModernBertConfig.from_variant(name, **overrides)
        if weights_dataset is not None:
            raise ValueError(
                f"weights_dataset is {weights_dataset!r}; there is one set of weights per variant: "
                "leave it out, or name a folder or hub id in pretrained"
            )
        kind, dtype = backends.resolve(backend, dtype, num_threads)
        options: dict[str, Any] = dict(backend=kind, dtype=dtype, num_threads=num_threads)
        in_arrays = backends.array_dtype(dtype)
        if pretrained is False:
            params = initialise(encoder_shapes(config), config, seed, in_arrays)
            return ModernBERT(config, params, **options)
        folder = pretrained_folder(name, pretrained, cache_dir)
        found = read_checkpoint(folder, dtype=in_arrays, kind=None)
        config = found.config.replace(**overrides)
        check_overrides(found.config, config, overrides, folder)
        return ModernBERT(config, found.params, source=found.source, **options)

    @classmethod
    def from_config(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """TypeError: the call of Keras, and what it is here."""
        raise TypeError(
            "a config alone has no weights: ModernBertConfig.from_dict(values) reads one of "
            'Hugging Face, ModernBertConfig.from_variant("base", **values) one of Keras; '
            "ModernBERT.from_variant(name, **overrides) draws random ones, load(folder) reads both"
        )

    @classmethod
    def from_pretrained(
        cls,
        folder_or_hub_id: Folder,
        *,
        backend: str = "auto",
        dtype: str = "float32",
        num_threads: int | None = None,
        revision: str | None = None,
    ) -> ModernBERT:
        """The encoder of a checkpoint folder or of a hub id in the local cache; a head is left out.

        dtype: what to compute in, see `load`. Raises ModelFormatError for a folder that is not what
        it claims, HubError for an id that is not in the cache, ValueError for a backend or dtype
        that is not there.
        """
        kind, dtype = backends.resolve(backend, dtype, num_threads)
        folder = resolve(folder_or_hub_id, revision=revision)
        packs = FromPack(dtype, num_threads) if kind == "native" else None
        found = read_checkpoint(folder, dtype=backends.array_dtype(dtype), kind=None, vouched=packs)
        options: dict[str, Any] = dict(backend=kind, dtype=dtype, num_threads=num_threads)
        options["engine"] = packs and packs.engine
        return ModernBERT(found.config, found.params, source=found.source, **options)

    # -- use --------------------------------------------------------------------------------------

    @underflow_is_zero
    def __call__(
        self,
        inputs: Mapping[str, Any] | Any,
        attention_mask: Any = None,
        position_ids: Any = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        tap: Tap | None = None,
        ops: Ops | None = None,
        training: bool = False,
    ) -> dict[str, Any]:
        """Run the model.

        inputs: ids [batch, seq], or a dict of `input_ids` or `inputs_embeds`, `attention_mask` (0
        and 1; default all 1), `token_type_ids`, `position_ids`.
        Returns `last_hidden_state` [batch, seq, hidden] (after the final norm) and `attention_mask`
        [batch, seq]; a head returns its own keys instead. On request `hidden_states`, a tuple of
        num_hidden_layers + 1 arrays: the embedding and each layer's output, the last one's behind
        the final norm, as transformers 5 has it (before it: the tap `layers.{i}.residual_2`), and
        `attentions`, one [batch, heads, seq, seq] per layer, which costs that much memory.
        `tap(name, array) -> array` is called at every step of MODEL.md; what it returns stands in
        the step's place. `ops`: name -> function, equations of reference/ops.py to be replaced (or
        an object that has all of them); a UserWarning tells one that the pass does not call. Raises
        ValueError, and OSError when a file that is still read was changed or cut since the model
        was loaded. `training` is that of Keras, and False.

        On backend native, and on cuda, the engine computes unless hidden states, attentions, a tap
        or other equations are asked for: those are the reference's, and numpy then computes
        everything, from `.params` as they are, in float32 whatever the engine computes in. The
        engine gives zeros after the last real token of a row.
        """
        check_training(training)
        uncalled: set[str] = set()
        used = equations if ops is None else replaced(ops, uncalled)
        checked = check_inputs(
            self.config, inputs, attention_mask, position_ids, dtype=self.dtype, axes=self.axes
        )
        wanted = Recorder(
            hidden_states=output_hidden_states, attentions=output_attentions, then=tap
        )
        looked_at = output_hidden_states or output_attentions or tap is not None or ops is not None
        if self._engine is not None and not looked_at:
            return self._by_engine(self._engine.get(), checked)
        hidden = encode(
            self._computed, self.config, **checked.rows(), ops=self._numpy(used), tap=wanted
        )
        out: dict[str, Any] = self._outputs(hidden, checked, used, wanted)
        if output_hidden_states:
            out["hidden_states"] = wanted.hidden_states
        if output_attentions:
            out["attentions"] = attention_maps(
                self.config, wanted.rotated, checked.rows()["attention_mask"], used
            )
        if not self.takes_pairs:  # those compare two texts after this
            warn_uncalled(uncalled, self.config.hidden_activation)
        return out

    def _by_engine(self, engine: Engine, checked: Inputs) -> dict[str, Any]:
        return self._outputs(engine.padded(**checked.rows()), checked, equations, no_tap)

    def _outputs(self, hidden: Array, checked: Inputs, ops: Any, tap: Tap) -> dict[str, Any]:
        return {"last_hidden_state": hidden, "attention_mask": checked.attention_mask}

    @underflow_is_zero
    def encode_packed(self, input_ids: Any, cu_seqlens: Any, *, stream: int | None = None) -> Any:
        """Sequences of different lengths laid end to end, without padding.

        input_ids int [total], cu_seqlens int [n + 1] from 0 to total -> last hidden state [total,
        hidden]. No sequence sees another, positions restart in each. Raises ValueError, OSError.

        On backend cuda, input_ids may stand on the device (int64; torch, cupy, jax): the result
        then stays there, a DeviceArray, which they take without a copy, and the work is put into
        `stream`, a number, None for the default one, and not waited for (device_arrays.py).
        """
        if self.backend.startswith("cuda") and self._engine is not None:
            from ..backends import device_arrays

            if device_arrays.is_there(input_ids):
                opened = self._engine.get().opened
                return device_arrays.packed(opened, input_ids, cu_seqlens, stream=stream)
        if stream is not None:
            raise ValueError(f"stream is {stream!r}, but input_ids are not on a device")
        ids, cu = check_packed(self.config, input_ids, cu_seqlens)
        if self._engine is not None:
            return self._engine.get().packed(ids, cu)
        ops = self._numpy(equations)
        return encode(self._computed, self.config, ids, cu_seqlens=cu, ops=ops)

    def _numpy(self, ops: Any) -> Any:
        """The equations that numpy computes with."""
        return ops if self._computed is self.params else Int8Ops(ops)

    def predict(
        self, inputs: Mapping[str, Any] | Any, batch_size: int = 32, verbose: bool | None = None
    ) -> dict[str, Array]:
        """`model(inputs)` in steps of batch_size rows, the outputs joined along the batch.

        verbose: a progress bar on stderr; None shows one on a terminal only. Raises ValueError,
        TypeError.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)):
            raise TypeError(f"batch_size is {batch_size!r}; it must be an integer")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        from ..progress import progress

        arrays = self._arrays(inputs)
        steps = [
            self({n: x[i : i + batch_size] for n, x in arrays.items()})
            for i in progress(
                range(0, len(arrays["attention_mask"]), batch_size), "predict", verbose
            )
        ]
        return joined(steps)

    def _arrays(self, inputs: Mapping[str, Any] | Any) -> dict[str, Array]:
        """The input, checked, as arrays that all have one entry per row."""
        checked = check_inputs(self.config, inputs, dtype=self.dtype, axes=self.axes)
        return {name: x for name, x in vars(checked).items() if x is not None}

    # -- facts and files --------------------------------------------------------------------------

    @property
    def folder(self) -> Path | None:
        """Where the model came from; None for one that was made here."""
        return None if self.source is None else self.source.path

    def __repr__(self) -> str:
        return model_in_words(self)

    @property
    def takes_pairs(self) -> bool:
        """False: an encoder takes one text a row."""
        return False

    def shapes(self) -> Shapes:
        """Name -> shape of every tensor of the model."""
        return encoder_shapes(self.config)

    @property
    def engine(self) -> Engine | None:
        """The engine that computes, packed by now; None on backend numpy."""
        return None if self._engine is None else self._engine.get()

    @property
    def tier(self) -> str | None:
        """What the engine computes with, or will: instructions of the processor, or a device; None
        on backend numpy."""
        return None if self._engine is None else self._engine.tier

    @property
    def num_parameters(self) -> int:
        return count(self.shapes())

    def summary(self, **gone: NoReturn) -> None:
        """Print a table of the model's parts with their shapes and parameters, and the total;
        layers that are alike share their lines (`shapes()` gives every tensor). TypeError for
        Keras' keywords, which says why."""
        refuse_any("summary", gone)
        print(parameter_table(type(self).__name__, self.shapes()))

    def save_pretrained(self, folder: Folder, *, dtype: str | None = None) -> None:
        """Write the model as a Hugging Face folder, which transformers loads as well.

        dtype: float64, float32, float16 or bfloat16 on disk; None keeps every tensor as it was read
        or handed in. Files are replaced atomically; the tokenizer files of the source folder come
        along.
        """
        write_checkpoint(folder, self.config, self.params, None, dtype=dtype, source=self.source)


def joined(steps: list[Any]) -> Any:
    """Outputs of several calls joined along the batch; a dict of dicts at every level."""
    if isinstance(steps[0], Mapping):
        return {name: joined([step[name] for step in steps]) for name in steps[0]}
    return np.concatenate(steps)


# -- what construction needs ----------------------------------------------------------------------


def refuse_keras_names(options: Mapping[str, Any]) -> None:
    """TypeError that writes down the right call for one with fields of the config."""
    known = {f.name for f in fields(ModernBertConfig)} | set(KERAS_NAMES)
    given = {name: x for name, x in options.items() if name in known}
    if given:
        values = ", ".join(f"{name}={x!r}" for name, x in given.items())
        raise TypeError(
            f"ModernBERT takes a config and its parameters; with these sizes and random weights it "
            f'is ModernBERT.from_variant("base", {values})'
        )


def check_params(params: Mapping[str, Array], shapes: Shapes) -> StoredParams:
    """The params; ValueError unless they are exactly the tensors of `shapes`, in one float dtype
    (as stored, those of a file may have several)."""
    arrays = stored(params)
    missing, extra = sorted(set(shapes) - set(params)), sorted(set(params) - set(shapes))
    if missing or extra:
        raise ValueError(f"params lack {missing[:3] or 'nothing'}, and have {extra[:3]} too many")
    for name, shape in shapes.items():
        if not isinstance(arrays[name], np.ndarray):
            kind = type(arrays[name]).__name__
            raise ValueError(f"params[{name!r}] is a {kind}; it must be a numpy array")
        if arrays[name].shape != shape:
            raise ValueError(f"params[{name!r}] has shape {arrays[name].shape}, not {shape}")
    if isinstance(params, StoredParams):
        return params
    dtypes = {x.dtype.name for x in arrays.values()}
    if len(dtypes) != 1:
        raise ValueError(f"params have the dtypes {sorted(dtypes)}; they must share one")
    return StoredParams(arrays, np.dtype(dtypes.pop()))


def check_overrides(
    found: ModernBertConfig, wanted: ModernBertConfig, overrides: Mapping[str, Any], folder: Path
) -> None:
    """ValueError that names the override which a checkpoint's tensors do not fit."""
    for name, value in overrides.items():
        for field in sorted(SHAPING & set(canonical_names({name: value}))):
            own = getattr(found, field)
            if own != getattr(wanted, field):
                raise ValueError(
                    f"{name} is {value!r}, but the checkpoint {folder} has {field} {own!r}; leave "
                    "it out, or take random weights (pretrained=False)"
                )


def pretrained_folder(variant: str, pretrained: bool | Folder, cache_dir: Folder | None) -> Path:
    """The folder that `pretrained` means: True is the official checkpoint of the variant."""
    if not isinstance(pretrained, (bool, str, os.PathLike)):
        raise TypeError(f"pretrained is {pretrained!r}; it must be a bool, a folder or a hub id")
    if not isinstance(pretrained, bool):
        return resolve(pretrained, cache_dir=cache_dir)
    if variant in OFFICIAL_CHECKPOINTS:
        return resolve(OFFICIAL_CHECKPOINTS[variant], cache_dir=cache_dir, download=True)
    return bundled()


def bundled(name: str = BUNDLED.name) -> Path:
    """A folder that comes along: "tiny", the small masked-LM, or "embed" or "classify", heads with
    adapters on its encoder. HubError where the package is in no folder."""
    if not BUNDLED.is_dir():
        package = BUNDLED.parents[1]
        where = next((p for p in package.parents if p.is_file()), package)
        raise HubError(
            f"the bundled model cannot be read: the package lies in {where}, a zip or the like; "
            "name a model folder, or unpack the package"
        )
    return BUNDLED.with_name(name)
