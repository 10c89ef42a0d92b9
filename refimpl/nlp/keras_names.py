"""What a Keras model or layer is asked for and has under another name here: answered by name.

    model.save("x.keras")   AttributeError: .. has no attribute 'save', which Keras has; here it is
                            model.save_pretrained(folder)

The tables of MIGRATION.md are these; GONE has keywords. Not here: names that are the same, and
those of the constructor, which `from_variant` takes (config.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

COUNTERPARTS: Mapping[str, str] = {
    "build": "not needed: parameters are there from the start",
    "call": "model(inputs)",
    "optimizer": "not kept: model.compile(optimizer=..) takes one of refimpl.train",
    "train_on_batch": "not here: model.fit(x, y), or refimpl.train.gradients and an optimiser",
    "count_params": "model.num_parameters",
    "export": "model.save_pretrained(folder)",
    "get_config": "model.config.to_dict()",
    "predict_on_batch": "model(inputs)",
    "test_on_batch": "not here: model.evaluate(x, y)",
    **dict.fromkeys(("get_layer", "layers"), "model.shapes() for the tensors, tap= for the steps"),
    "get_weights": "model.params, a dict of arrays by name",
    "load_weights": "refimpl.load(folder), a new model",
    "save": "model.save_pretrained(folder)",
    "save_weights": "model.save_pretrained(folder)",
    "set_weights": "type(model)(model.config, params), a new model",
    "to_json": "json.dumps(model.config.to_dict())",
    **dict.fromkeys(
        ("trainable_variables", "trainable_weights", "variables", "weights"),
        "model.params, a dict of arrays by name",
    ),
}
WITH_A_HEAD: Mapping[str, str] = {
    **COUNTERPARTS,
    "set_weights": "type(model)(model.config, params, model.head), a new model",
}
OF_A_HEAD: Mapping[str, str] = {
    "count_params": "sum(x.size for x in head.params.values())",
    "get_config": "head.head.to_dict()",
    **dict.fromkeys(
        ("get_weights", "trainable_variables", "trainable_weights", "variables", "weights"),
        "head.params",
    ),
    "save": "save_pretrained(folder) of create_modern_bert_with_head(..): a model holds its head",
}


GONE: Mapping[str, str] = {
    **dict.fromkeys(("custom_objects", "safe_mode"), "a folder holds no code"),
    "compile": "a folder holds no optimiser: model.compile(..) says how to train",
    "callbacks": "steps of one's own are refimpl.train.gradients and an optimiser",
    "shuffle": "rows are shuffled anew for every epoch, by seed",
    "validation_split": "validation_data=(x, y) takes the rows held out",
    "sample_weight": "every row counts alike",
    "class_weight": "refimpl.train.gradients has class_weights",
    "initial_epoch": "fit again goes on where fit ended",
    "steps_per_epoch": "an epoch is one pass over the rows",
    "loss_weights": "loss_weight is a field of each NLPTaskConfig",
    **dict.fromkeys(("jit_compile", "run_eagerly"), "training is plain numpy, nothing is traced"),
    **dict.fromkeys(
        ("line_length", "positions", "print_fn", "expand_nested", "show_trainable"),
        "the table has one form; model.shapes() has what is in it",
    ),
}
"""Keywords of Keras' load_model, compile, fit, evaluate and summary that are not here, and why."""


def refuse_gone(call: str, options: Mapping[str, Any]) -> None:
    """TypeError for a keyword of GONE, which says why."""
    for name in options:
        if name in GONE:
            raise TypeError(f"{call} has no {name!r}, which Keras has: {GONE[name]}")


def refuse_any(call: str, options: Mapping[str, Any]) -> None:
    """The same, and TypeError for any other keyword."""
    refuse_gone(call, options)
    for name in options:
        raise TypeError(f"{call}() got an unexpected keyword argument {name!r}")


class KerasNames:
    """Answers the names of COUNTERPARTS, or those of a subclass."""

    _counterparts: Mapping[str, str] = COUNTERPARTS

    if not TYPE_CHECKING:  # or every name would count as known

        def __getattr__(self, name: str) -> Any:
            kind, here = type(self).__name__, self._counterparts.get(name)
            told = f"{kind!r} object has no attribute {name!r}"
            if here is not None:
                told += f", which Keras has; here it is {here}"
            raise AttributeError(told, name=name, obj=self)


def check_training(training: bool | None) -> None:
    """ValueError for training=True: a call is a forward pass without dropout."""
    if training is not False and training is not None:
        raise ValueError(
            f"training is {training!r}; a call computes a forward pass without dropout, so it can "
            "only be False"
        )
