// What one pass needs of a device: where each array stands in one piece of memory, and the pieces that wait
// for the next pass, each with the graphs that were made of it.
//
// The size is a function of tokens and sequences alone (`Layout`), so that it can be published. At most
// kIdle pieces wait; one that is too small is given back before a larger one is taken.
#pragma once

#include <algorithm>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/attention.h"
#include "cuda/graphs.h"
#include "cuda/runtime.h"
#include "engine/engine.h"

namespace refimpl::cuda {

// Tokens whose normed and gated rows exist at a time: those of base stay in 50 MB of L2 cache.
constexpr std::size_t kTokenChunk = 8192;

// Sizes of a model, and of an operand's number.
struct Sizes {
  std::size_t hidden, inter, heads, number;
  bool graphs;            // short passes are rounded up to a bucket
  std::size_t vector;     // the widest that a head makes of a sequence; 0: no head

  std::size_t head_dim() const { return hidden / heads; }
  // Numbers from row to row of operands, rows of 16 bytes; and of a head's vectors.
  std::size_t ld(std::size_t columns) const { return round_up(columns, 16 / number); }
  std::size_t ld_vector() const { return round_up(vector, 4); }
  Bucket bucket(std::size_t tokens, std::size_t sequences) const {
    return graphs ? bucket_of(tokens, sequences) : Bucket{tokens, sequences};
  }
};

// Offsets in bytes. What the host writes comes first, `staged` bytes of it.
struct Layout {
  std::size_t ids, types, visible, row, cu, blocks, staged;
  std::size_t x, q, keys, values, normed, gated, vectors[2], bytes;
  std::size_t kv_bytes, most_blocks;

  Layout(const Sizes& s, std::size_t total, std::size_t sequences) {
    const std::size_t chunk = std::min(total, kTokenChunk);
    most_blocks = total / kQueries + std::min(sequences, total);
    kv_bytes = s.heads * total * padded_head(s.head_dim()) * s.number;
    std::size_t end = 0;
    const auto place = [&](std::size_t size) { return std::exchange(end, round_up(end + size, 256)); };
    ids = place(total * sizeof(std::int64_t)), types = place(total * sizeof(std::int64_t)), visible = place(total);
    row = place(total * sizeof(std::uint32_t)), cu = place((sequences + 1) * sizeof(std::uint32_t));
    blocks = place(most_blocks * sizeof(QueryBlock));
    staged = end;
    x = place(total * s.hidden * sizeof(float)), q = place(total * s.ld(s.hidden) * s.number);
    keys = place(kv_bytes), values = place(kv_bytes);
    normed = place(chunk * s.ld(s.hidden) * s.number), gated = place(chunk * s.ld(s.inter) * s.number);
    for (std::size_t& v : vectors) v = place(sequences * s.ld_vector() * sizeof(float));
    bytes = end;
  }
};

struct Workspace {
  explicit Workspace(int device) : stream(device), done(device) {}
  ~Workspace() {
    try {
      done.finish();  // a pass on a stream of the caller may not be over
    } catch (const std::exception&) {
    }  // the device is gone
  }
  DeviceMemory memory;
  HostMemory staging;
  OwnStream stream;
  Event done;  // of the last pass
  Graphs graphs;
};

// Those of a model that no pass uses.
class Workspaces {
 public:
  explicit Workspaces(int device) : device_(device) {}

  // For one pass. Throws DeviceFull, std::bad_alloc.
  std::unique_ptr<Workspace> take(const Layout& layout) {
    std::unique_ptr<Workspace> out;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!idle_.empty()) out = std::move(idle_.front()), idle_.erase(idle_.begin());
    }
    if (!out) out = std::make_unique<Workspace>(device_);
    out->done.finish();  // a pass on a stream of the caller may not be over
    if (out->staging.bytes() < layout.staged) out->staging = {}, out->staging = HostMemory(layout.staged);
    if (out->memory.bytes() < layout.bytes) {
      out->graphs.clear(), out->memory = {};
      try {
        out->memory = DeviceMemory(device_, layout.bytes);
      } catch (const DeviceFull&) {
        forget();
        out->memory = DeviceMemory(device_, layout.bytes);
      }
    }
    return out;
  }
  void give(std::unique_ptr<Workspace> workspace) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (idle_.size() < kIdle) idle_.push_back(std::move(workspace));
  }
  // Gives the memory of those that wait back.
  void forget() {
    std::vector<std::unique_ptr<Workspace>> gone;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      gone.swap(idle_);
    }
    for (const auto& workspace : gone) workspace->done.finish();
  }

 private:
  static constexpr std::size_t kIdle = 4;
  const int device_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Workspace>> idle_;  // the one that has waited longest first
};

}  // namespace refimpl::cuda
