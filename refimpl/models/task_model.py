"""An encoder with a head as one object, and `load`, which gives what a folder names.

    model = refimpl.load(folder)                        -> ModernBERT or ModernBERTForTask
    model({"input_ids": ids, "attention_mask": mask})   -> {"logits": ...}, the head's own keys

The encoder's half, construction and checks are model.py's; the heads' mathematics is in heads.py,
sentence.py and nlp/. Long because what a head adds to every public call stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from ..backends import backend as backends
from ..backends.engine import Engine
from ..backends.pack import FromPack
from ..errors import ModelFormatError
from ..files.checkpoint import read_checkpoint, write_checkpoint
from ..files.folder import CONFIG, ModelFolder
from ..files.hub import resolve
from ..files.stored import ForProducts
from ..nlp import MultiTaskHead, NLPHead
from ..nlp.keras_names import WITH_A_HEAD, refuse_any
from ..reference import ops as equations
from ..reference.config import ModernBertConfig
from ..reference.encoder import Tap
from ..reference.heads import HEADS, Head
from ..reference.int8 import Kept
from ..reference.numerics import underflow_is_zero
from ..reference.params import Shapes, encoder_shapes
from ..reference.replacing import replaced
from ..reference.sentence import SentenceHead
from ..text.pairs import SUFFIX, second_text, split_pair
from .inputs import Inputs
from .model import Folder, ModernBERT, Ops

Array = np.ndarray


class ModernBERTForTask(ModernBERT):
    """An encoder with a head; the outputs are the head's, e.g. `logits`. `.encoder` is the bare
    one."""

    _counterparts = WITH_A_HEAD

    def __init__(
        self,
        config: ModernBertConfig,
        params: Mapping[str, Array],
        head: Head | SentenceHead | NLPHead | MultiTaskHead,
        *,
        backend: str = "auto",
        dtype: str | None = None,
        num_threads: int | None = None,
        source: ModelFolder | None = None,
        kept: Kept | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.head = head
        if isinstance(head, SentenceHead):
            self.sentence_head = self.engine_head = head
        elif head == HEADS["sequence_classification"]:
            self.engine_head = head
        if head.kind == "multiple_choice":
            self.axes = ("batch", "choices", "seq")
        where: dict[str, Any] = dict(backend=backend, dtype=dtype, num_threads=num_threads)
        super().__init__(config, params, source=source, kept=kept, engine=engine, **where)

    @classmethod
    def from_variant(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """TypeError: a variant is an encoder, and names no head."""
        raise TypeError(
            "a variant has no head: create_modern_bert_with_head puts one on it, load and "
            "ModernBERTForTask.from_pretrained read one from a folder"
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
    ) -> ModernBERTForTask:
        """`load` of a folder that names a head; ModelFormatError where it names none."""
        model = load(
            folder_or_hub_id,
            backend=backend,
            dtype=dtype,
            num_threads=num_threads,
            revision=revision,
        )
        if isinstance(model, ModernBERTForTask):
            return model
        assert model.source is not None
        raise ModelFormatError(
            f"{list(model.config.architectures)} names no head; those with one: "
            f"{', '.join(head.architecture for head in HEADS.values())} (load and "
            "ModernBERT.from_pretrained take the encoder alone)",
            file=model.source.file(CONFIG),
            key="architectures",
        )

    @property
    def encoder(self) -> ModernBERT:
        """The encoder alone, over the same parameters."""
        own = self.params.only(encoder_shapes(self.config))
        found = ModernBERT(
            self.config, own, backend=self.backend, dtype=self.compute_dtype, source=self.source
        )
        found.params, found._engine = own, self._engine
        return found

    def shapes(self) -> Shapes:
        return encoder_shapes(self.config) | self.head.shapes(self.config)

    @property
    def takes_pairs(self) -> bool:
        """True when the input may hold a second text, in keys that end in `_2`."""
        return isinstance(self.head, (NLPHead, MultiTaskHead)) and self.head.takes_pairs

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
        """As the encoder, with the head's outputs in place of `last_hidden_state`.

        A similarity head also takes pairs: `input_ids_2`, `attention_mask_2` and so on are the
        second text of each row. Hidden states, attentions and taps are then those of the first.
        """
        first, second = split_pair(inputs) if self.takes_pairs else (inputs, None)
        run = super().__call__
        if second is not None:
            with second_text():
                other = run(second, ops=ops, training=training)
        out = run(
            first, attention_mask, position_ids, output_hidden_states, output_attentions, tap, ops,
            training,
        )  # fmt: skip
        if second is None:
            return out
        assert isinstance(self.head, (NLPHead, MultiTaskHead))
        extras = {n: out[n] for n in ("hidden_states", "attentions") if n in out}
        used = equations if ops is None else replaced(ops)
        return self.head.compare(self.params, out, other, used) | extras

    def _arrays(self, inputs: Mapping[str, Any] | Any) -> dict[str, Array]:
        first, second = split_pair(inputs) if self.takes_pairs else (inputs, None)
        out = super()._arrays(first)
        if second is not None:
            with second_text():
                other = super()._arrays(second)
            out |= {name + SUFFIX: x for name, x in other.items()}
        return out

    def _by_engine(self, engine: Engine, checked: Inputs) -> dict[str, Any]:
        if self.engine_head is None:
            return super()._by_engine(engine, checked)
        if self.sentence_head is None:
            return {"logits": engine.logits(checked.rows())}
        key = "logits" if self.sentence_head.makes_scores else "embeddings"
        return {key: engine.embed(checked.rows())}

    def _outputs(self, hidden: Array, checked: Inputs, ops: Any, tap: Tap) -> dict[str, Any]:
        hidden = hidden.reshape(*checked.axes, -1)
        mask = checked.attention_mask
        params = ForProducts(self.params)
        return self.head.forward(params, self.config, hidden, mask, ops, tap)

    @underflow_is_zero
    def of_hidden(self, hidden: Array) -> dict[str, Any]:
        """The head's outputs for the encoder's [batch, seq, hidden], in which every token is real.

        numpy computes them, whose bits depend on the shape: a text alone has the same ones always.
        """
        params = ForProducts(self.params)
        out: dict[str, Any] = self.head.forward(params, self.config, hidden)
        return out

    def save_pretrained(self, folder: Folder, *, dtype: str | None = None) -> None:
        write_checkpoint(
            folder, self.config, self.params, self.head, dtype=dtype, source=self.source
        )


def load(
    folder_or_hub_id: Folder,
    *,
    backend: str = "auto",
    dtype: str = "float32",
    num_threads: int | None = None,
    revision: str | None = None,
    **gone: NoReturn,
) -> ModernBERT:
    """The model that a folder holds, with the head that `architectures` or modules.json names.

    folder_or_hub_id: a Hugging Face or sentence-transformers folder, or a hub id in the local
    cache. dtype: what to compute in (`info()` tells what there is): float32; float64 on backend
    numpy; bfloat16 on backend native, with half the memory and errors near 1e-2 of the hidden
    state; bf16x3 where the processor has AMX. Arrays that go in and come out are float32, or
    float64 with float64; heads are computed in that too. Returns ModernBERT or ModernBERTForTask.
    Raises ModelFormatError, HubError, ValueError, TypeError (of Keras' keywords, with why).
    """
    refuse_any("load", gone)
    kind, dtype = backends.resolve(backend, dtype, num_threads)
    folder = resolve(folder_or_hub_id, revision=revision)
    packs = FromPack(dtype, num_threads) if kind == "native" else None
    found = read_checkpoint(folder, dtype=backends.array_dtype(dtype), vouched=packs)
    where: dict[str, Any] = dict(backend=kind, dtype=dtype, num_threads=num_threads)
    options = where | {"source": found.source, "engine": packs and packs.engine}
    if found.head is None:
        return ModernBERT(found.config, found.params, **options)
    return ModernBERTForTask(found.config, found.params, found.head, **options)
