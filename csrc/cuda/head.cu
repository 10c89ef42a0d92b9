// DeviceHead.
#include "cuda/head.h"

#include <algorithm>

#include "cuda/pooling.h"
#include "cuda/rowwise.h"

namespace refimpl::cuda {

using Kind = ModulePlan::Kind;

DeviceHead::DeviceHead(int device, std::size_t hidden, const std::vector<ModulePlan>& plan)
    : hidden_(hidden), width_(hidden), widest_(hidden) {
  for (const ModulePlan& given : plan) {
    modules_.push_back({given, {}, {}});
    if (given.kind == Kind::pooling) width_ = hidden * given.modes.size();
    if (given.kind == Kind::dense) modules_.back().dense.packing = {given.width, width_, 0}, width_ = given.width;
    if (given.kind == Kind::layer_norm) modules_.back().plan.width = width_;
    widest_ = std::max(widest_, width_);
  }
  Room nothing;
  place(nothing);
  memory_ = DeviceMemory(device, nothing.bytes());
  Room room(memory_.data());
  place(room);
  Bringer bringer(device);
  for (Module& m : modules_) {
    if (m.plan.kind == Kind::dense) bringer.linear(m.dense, m.plan.weight, m.plan.bias);
    if (m.plan.kind == Kind::layer_norm) bringer.norm(m.norm, m.plan.width, m.plan.weight, m.plan.bias);
    m.plan.weight = m.plan.bias = {};
  }
}

void DeviceHead::place(Room& room) {
  for (Module& m : modules_) {
    if (m.plan.kind == Kind::dense) m.dense = room_for<float>(room, m.dense.packing, m.plan.bias.data != nullptr);
    if (m.plan.kind == Kind::layer_norm) m.norm = room_for(room, m.plan.width, m.plan.weight, m.plan.bias);
  }
}

DeviceHead::Vectors DeviceHead::run(Stream& stream, std::size_t sequences, const float* hidden, const std::uint32_t* cu_seqlens,
                                    const unsigned char* visible, std::size_t prompt_tokens, Vectors v) const {
  const unsigned rows = static_cast<unsigned>(sequences);
  std::size_t width = hidden_;
  for (const Module& m : modules_) {
    switch (m.plan.kind) {
      case Kind::pooling: {
        const unsigned left_out = m.plan.include_prompt ? 0 : static_cast<unsigned>(std::min<std::size_t>(prompt_tokens, 0xffffffffu));
        for (std::size_t i = 0; i < m.plan.modes.size(); ++i)
          started(pool(turn(stream), m.plan.modes[i],
                       {rows, static_cast<unsigned>(hidden_), hidden, hidden_, cu_seqlens, visible, left_out, v.is_in + i * hidden_, v.ld}));
        width = hidden_ * m.plan.modes.size();
        break;
      }
      case Kind::dense:
        multiply_rows<3>(stream, m.dense, sequences, static_cast<const float*>(v.is_in), v.ld, AddTo{m.dense.bias, nullptr, 0, v.is_free, v.ld});
        std::swap(v.is_in, v.is_free);
        width = m.plan.width;
        if (m.plan.activation != Activation::linear)
          started(activate_rows(turn(stream), m.plan.activation, {rows, static_cast<unsigned>(width), v.is_in, v.ld}));
        break;
      case Kind::layer_norm:
        started(residual_norm<float>(turn(stream), {rows, static_cast<unsigned>(width), v.is_in, v.ld, nullptr, 0,
                                                    {m.norm.weight, m.norm.bias, m.plan.eps}, v.is_in, v.ld}));
        break;
      case Kind::normalize:
        started(unit_rows(turn(stream), {rows, static_cast<unsigned>(width), v.is_in, v.ld, v.is_in, v.ld}));
        break;
    }
  }
  return v;
}

}  // namespace refimpl::cuda
