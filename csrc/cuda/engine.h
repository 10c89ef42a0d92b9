// The whole encoder on a device: weights packed there once, one workspace a pass, the steps of MODEL.md.
//
// As engine/engine.h, with its contracts: packed sequences of any lengths, none sees another, and a
// sequence's result has the same bits whatever stands beside it, in whatever stream. Rows without a key
// are zero. Heads of up to 128 columns. What a pass takes of the device is Layout's bytes (workspace.h),
// taken before anything is started: where there is not so much, nothing was done and the model stays
// usable.
#pragma once

#include <functional>
#include <memory>

#include "cuda/head.h"
#include "cuda/workspace.h"
#include "engine/engine.h"

namespace refimpl::cuda {

// What a pass is over, and what is wanted of it. Pointers of the batch are of the device where
// `on_device`, but positions; of `out` too.
struct Pass {
  const Batch& batch;
  bool on_device = false;
  bool has_stream = false;
  Stream stream{};                    // of the caller: nothing is waited for
  std::function<bool()> stop{};       // asked now and then
  const Tap* tap = nullptr;
  bool fused = true;
  const DeviceHead* head = nullptr;   // null: hidden states are wanted, else what it makes of them
  std::size_t width = 0;              // values kept of each vector
  bool normalize = false;
  std::size_t prompt_tokens = 0;
  float* out = nullptr;
};

class DeviceEngine {
 public:
  virtual ~DeviceEngine() = default;
  // False when it was stopped. Throws DeviceFull, std::bad_alloc, and what tap throws.
  virtual bool run(const Pass& pass) const = 0;

  // Bytes of a device that a pass takes for so many tokens in so many sequences, rounded up to a bucket's; rotary
  // tables of positions that are given come on top.
  std::size_t workspace_bytes(std::size_t total, std::size_t sequences) const {
    const Bucket bucket = sizes.bucket(total, sequences);
    return Layout(sizes, bucket.tokens, bucket.sequences).bytes;
  }
  // Bytes of the weights on the device, without the heads'.
  virtual std::size_t weight_bytes() const = 0;
  // Gives the memory of idle workspaces back.
  void forget() const { workspaces.forget(); }

  const int device;
  const Plan plan;
  Sizes sizes;

 protected:
  DeviceEngine(int device, const Plan& plan, std::size_t number)
      : device(device), plan(plan),
        sizes{plan.hidden, plan.inter, plan.heads, number, true, 0}, workspaces(device) {}
  mutable Workspaces workspaces;
};

// Tells of layers as refimpl::Engine does. Throws what these throw, DeviceFull, std::invalid_argument for what
// does not fit a device, Unreadable.
using OfLayer = std::function<void(std::size_t layer)>;
std::unique_ptr<DeviceEngine> make_float32(int device, const Plan& plan, const Weights& weights, const OfLayer& reading, const OfLayer& packed);
std::unique_ptr<DeviceEngine> make_bf16x3(int device, const Plan& plan, const Weights& weights, const OfLayer& reading, const OfLayer& packed);
std::unique_ptr<DeviceEngine> make_bfloat16(int device, const Plan& plan, const Weights& weights, const OfLayer& reading, const OfLayer& packed);

}  // namespace refimpl::cuda
