"""The table of the gallery: what is run, and what is to be found, read from each port's source."""

from __future__ import annotations

from dataclasses import dataclass

TORCH = ("torch==2.13.0",)
# Environment -> what pip installs into it, call by call.
ENVIRONMENTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "transformers-4.48.0": (TORCH, ("transformers==4.48.0",)),
    "transformers-4.52.4": (TORCH, ("transformers==4.52.4",)),
    "transformers-4.57.6": (TORCH, ("transformers==4.57.6",)),
    "transformers-5": (
        TORCH,
        ("transformers==5.24.0", "onnx==1.23.2", "onnxscript==0.7.2", "onnxruntime==1.32.0",
         "openvino==2026.4.1"),
    ),
    "keras-hub": (("jax==0.10.2", "keras==3.15.1", "safetensors==0.8.0",
         "keras-hub-nightly==0.33.0.dev202610250352"),),
    "mlx": (("mlx[cpu]==0.32.4",), ("mlx-embeddings==0.1.0",)),
    "llama.cpp": (("xllamacpp==2026.10.11549", "gguf==0.19.0"),),
    "embed-anything": (("embed-anything==0.7.1", "safetensors==0.8.0"),),
}  # fmt: skip


@dataclass(frozen=True)
class Port:
    """One port in one configuration.

    packages: those whose versions the page shows; verdict, causes: what the kit has to say, from
    the port's source: ids of the zoo, of each set that cannot be told apart any one; source: the
    same in words; dtype: what it is held to where it is told; owed: what the kit does not say yet,
    or says wrongly, as `faults` of run.py lists it.
    """

    name: str
    title: str
    environment: str
    packages: tuple[str, ...]
    adapter: str
    verdict: str
    source: str
    causes: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    way: str = "dump"
    dtype: str | None = None
    owed: tuple[str, ...] = ()


def of_transformers(version: str, *options: str, source: str, causes: tuple[str, ...] = ()) -> Port:
    old = "old-keys" in options
    return Port(
        f"transformers-{version}-" + "-".join(options),
        f"transformers, {options[0]}, {options[1]}" + (", configs in old keys" if old else ""),
        "transformers-5" if version == "5" else f"transformers-{version}",
        ("transformers", "torch"),
        "transformers_modules.py",
        "fail" if causes else "exact-spec",
        source,
        causes,
        options,
    )


def of_onnx(exporter: str, kind: str, source: str, cause: str | None = None) -> Port:
    return Port(
        f"onnx-{exporter}-{kind}",
        f"ONNX export, {exporter}, {kind}",
        "transformers-5",
        ("torch", "transformers", "onnxruntime"),
        "onnx_export.py",
        "fail" if cause else "exact-spec",
        source,
        (cause,) if cause else (),
        (exporter, kind),
        "onnx",
    )


def of_llama(flash: str, verdict: str, source: str, dtype: str | None = None, *causes: str) -> Port:
    return Port(
        f"llama.cpp-{flash}" + (f"-{dtype}" if dtype else ""),
        f"llama.cpp, flash attention {flash}" + (f", held to {dtype}" if dtype else ""),
        "llama.cpp",
        ("xllamacpp", "gguf"),
        "llama_cpp_server.py",
        verdict,
        source,
        causes,
        (flash,),
        dtype=dtype,
    )


UNREAD = "`layer_types` and `rope_parameters` are not read: where they stand alone, thetas of \
160000 and 10000 and a full layer every third are taken; where old keys say other things, those"
HALF = "keys and values go through float16 where flash attention is used, which is the default"
PORTS: tuple[Port, ...] = (
    of_transformers("5", "sdpa", "float32", source="right"),
    of_transformers("5", "eager", "bfloat16", source="right, in bfloat16"),
    of_transformers("4.57.6", "sdpa", "float32", causes=("C5e",), source=UNREAD),
    of_transformers(
        "4.57.6", "sdpa", "float32", "old-keys", source="right, where a config says it in old keys"
    ),
    of_transformers("4.52.4", "sdpa", "float32", causes=("C5e",), source=UNREAD),
    of_transformers("4.48.0", "eager", "float32", causes=("C5e",), source=UNREAD),
    of_onnx("dynamo", "float32", "right"),
    of_onnx("script", "float32", "right"),
    of_onnx("script", "float16", "right, in float16: the file says so"),
    of_onnx(
        "script",
        "int8",
        "quantize_dynamic: products of 8-bit weights and activations, one scale a tensor and "
        "batch; rows of the embedding table in 8 bits",
        "X1f",
    ),
    Port(
        "openvino",
        "OpenVINO's CPU plugin, float32",
        "transformers-5",
        ("openvino", "torch", "transformers"),
        "openvino_cpu.py",
        "exact-spec",
        "right",
    ),
    Port(
        "keras-hub",
        "keras-hub on JAX",
        "keras-hub",
        ("keras-hub-nightly", "keras", "jax"),
        "keras_hub_modernbert.py",
        "fail",
        "`hidden_activation` and `layer_types` are not read; norms and products have no biases; "
        "the decoder is always tied",
        ("C6", "C5d", "N6b", "H6b"),
    ),
    Port(
        "mlx-embeddings",
        "mlx-embeddings on MLX's CPU kernels",
        "mlx",
        ("mlx-embeddings", "mlx"),
        "mlx_embeddings_modernbert.py",
        "fail",
        '`nn.GELU(approx="precise")`, which is tanh, whatever `hidden_activation`; new keys are '
        "not read; `position_ids` are taken and not used; a classifier gives probabilities",
        ("F2", "C6", "C5e", "R4a", "H4b"),
    ),
    of_llama("disabled", "exact-spec", "right (the GGUF says activation, thetas and schedule)"),
    of_llama("auto", "fail", HALF, None, "X1e"),
    of_llama("auto", "exact-spec", HALF, "float16"),
    Port(
        "embed-anything",
        "EmbedAnything (candle), texts in, vectors out",
        "embed-anything",
        ("embed-anything",),
        "embed_anything_texts.py",
        "fail",
        "`hidden_activation` and new keys are not read; norms and products have no biases",
        ("C6", "C5e", "N6b"),
    ),
)
