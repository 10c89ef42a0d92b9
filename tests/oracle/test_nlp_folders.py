"""Folders of models with configurable heads, as transformers sees them: an ordinary encoder."""

import numpy as np
import pytest

from refimpl import NLPTaskConfig, create_modern_bert_with_head

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.0")

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("several", [False, True])
def test_nlp_folder_loads_in_transformers_as_the_encoder(several, tmp_path):
    task = NLPTaskConfig("mood", "sentiment_analysis", num_classes=3)
    sizes = dict(vocab_size=17, hidden_size=16, num_layers=3, num_heads=2, intermediate_size=8)
    model = create_modern_bert_with_head(
        "tiny", [task] if several else task, False, None, None, sizes
    )
    model.save_pretrained(tmp_path)
    theirs = transformers.AutoModel.from_pretrained(tmp_path)
    assert type(theirs).__name__ == "ModernBertModel"
    state = {name: x.numpy() for name, x in theirs.state_dict().items()}
    ours = model.encoder.params
    assert set(ours) <= set(state)
    for name, x in ours.items():
        np.testing.assert_array_equal(state[name], x)
    assert [theirs.config.layer_types[i] for i in range(3)] == list(model.config.layer_types)
