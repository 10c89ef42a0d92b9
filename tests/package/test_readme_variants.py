"""The table of variants in USAGE.md is what the code says; a failure prints the right one."""

from support.readme import section

from refimpl import VARIANTS, ModernBertConfig
from refimpl.reference.heads import HEADS
from refimpl.reference.params import count, encoder_shapes

COLUMNS = (
    "variant", "hidden", "layers", "of them full", "heads", "inter",
    "keys seen in a sliding layer", "vocabulary", "encoder parameters", "with the masked-LM head",
)  # fmt: skip


def variants_table() -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS)]
    for name in VARIANTS:
        config = ModernBertConfig.from_variant(name)
        layers = range(config.num_hidden_layers)
        windows = {config.window(i) for i in layers if not config.is_global(i)}
        encoder = encoder_shapes(config)
        masked_lm = encoder | HEADS["masked_lm"].shapes(config)
        numbers = [
            config.hidden_size, len(layers), sum(map(config.is_global, layers)),
            config.num_attention_heads, config.intermediate_size, 2 * windows.pop() + 1,
            config.vocab_size, count(encoder), count(masked_lm),
        ]  # fmt: skip
        lines.append([f"`{name}`", *(f"{n:,}" for n in numbers)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def test_variants_table_is_up_to_date():
    assert variants_table() in section("Variants", "USAGE.md")
