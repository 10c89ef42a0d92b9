// Passes that were asked for before, as one launch: graphs of a workspace's kernels, a bounded number of them.
//
// A launch costs the host some microseconds, and a short pass is 150 of them. Tokens and sequences are
// rounded up to those of a bucket: tokens that fill up are computed and read by nobody, sequences and
// blocks of queries that fill up are empty. So passes of other lengths have the same launches, whose
// arguments are places in the workspace; what differs is copied there before. A graph is made when its
// bucket is asked for again.
#pragma once

#include <algorithm>
#include <memory>
#include <tuple>
#include <vector>

#include "cuda/head.h"
#include "cuda/runtime.h"

namespace refimpl::cuda {

constexpr std::size_t kGraphTokens = 2048, kGraphSequences = 256;  // beyond these a pass is no launches' matter
constexpr std::size_t kMostGraphs = 16;                            // of a workspace

// Tokens and sequences as a pass computes them: of a bucket, or as they are.
struct Bucket {
  std::size_t tokens, sequences;
};
inline Bucket bucket_of(std::size_t tokens, std::size_t sequences) {
  if (tokens == 0 || tokens > kGraphTokens || sequences > kGraphSequences) return {tokens, sequences};
  const std::size_t step = tokens <= 128 ? 16 : tokens <= 512 ? 32 : 128;
  std::size_t slots = 1;
  while (slots < sequences) slots *= 2;
  return {round_up(tokens, step), slots};
}

// What two passes of a workspace have in common that have the same launches.
struct GraphKey {
  std::size_t tokens, sequences, width, prompt_tokens;
  bool types, visible, normalize;
  const DeviceHead* head;
  std::uint64_t tables;  // which rotary tables

  bool operator==(const GraphKey& o) const {
    const auto all = [](const GraphKey& k) {
      return std::tie(k.tokens, k.sequences, k.width, k.prompt_tokens, k.types, k.visible, k.normalize, k.head, k.tables);
    };
    return all(*this) == all(o);
  }
};

class Graphs {
 public:
  struct Kept {
    GraphKey key;
    std::unique_ptr<Graph> graph;  // null: asked for once, or it could not be made
    bool tried = false;
    float* result = nullptr;       // where the graph leaves what was asked for
  };

  // That of a key; null when nobody asked for it before. What nobody asked for longest gives way.
  Kept* find(const GraphKey& key) {
    const auto found = std::find_if(kept_.begin(), kept_.end(), [&](const auto& k) { return k->key == key; });
    if (found != kept_.end()) {
      std::rotate(found, found + 1, kept_.end());
      return kept_.back().get();
    }
    if (kept_.size() == kMostGraphs) kept_.erase(kept_.begin());
    kept_.push_back(std::make_unique<Kept>(Kept{key, nullptr}));
    return nullptr;
  }
  void clear() { kept_.clear(); }

 private:
  std::vector<std::unique_ptr<Kept>> kept_;  // the last one was asked for last
};

}  // namespace refimpl::cuda
