// Poolings, and their names as `pooling_mode` of sentence-transformers spells them.
#pragma once

#include <string>

namespace refimpl {

// In the order in which several are joined where a file has a flag for each. cls: the first visible token.
// first: the first token, visible or not, as classifiers of transformers take it; it has no name there.
enum class Pooling { cls, max, mean, mean_sqrt_len_tokens, weightedmean, lasttoken, first };

// Sets `found`; false when the name is unknown.
bool named_pooling(const std::string& name, Pooling& found);

// "cls, max, ..": for messages.
std::string pooling_names();

}  // namespace refimpl
