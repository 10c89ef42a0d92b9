// Keys and values as attention.inl reads them, float32. Included like gemm.inl, before it.
//
// Per head, keys stand in panels of kPanel slots, [slots / kPanel, head_dim, kPanel]: one vector load
// takes the same component of neighbouring keys. Values stand in panels of kPanel components,
// [head_dim / kPanel, slots, kPanel]: a product with them reads one after the other, as with weights.

inline std::size_t kv_width(std::size_t head_dim) { return round_up(head_dim, kPanel); }

inline std::size_t kv_bytes(std::size_t slots, std::size_t head_dim) {
  return slots * kv_width(head_dim) * sizeof(float);
}

REFIMPL_INLINE float* keys_of(const Heads& h, std::size_t head, std::size_t slot) {
  return static_cast<float*>(h.keys) + (head * h.slots + slot) * kv_width(h.head_dim);
}
// The panel of a value's component i, from a slot on.
REFIMPL_INLINE float* values_of(const Heads& h, std::size_t head, std::size_t slot, std::size_t i) {
  return static_cast<float*>(h.values) + head * h.slots * kv_width(h.head_dim) + (i / kPanel * h.slots + slot) * kPanel;
}

// Components i .. i + n and head_dim / 2 further of tokens' keys and values, one row after the other; end() after the
// last of some. Here each stands where it belongs at once.
struct KeyRows {
  REFIMPL_INLINE void place(const Heads& h, std::size_t token, std::size_t head, std::size_t i, f32 v0, f32 v1, int n) {
    const std::size_t slot = h.slot[token], half = h.head_dim / 2;
    float* column = keys_of(h, head, slot / kPanel * kPanel) + slot % kPanel;
    float a[kLanes], b[kLanes];
    store(a, v0), store(b, v1);
    for (int l = 0; l < n; ++l) {
      column[(i + l) * kPanel] = a[l];
      column[(half + i + l) * kPanel] = b[l];
    }
  }
  void end(const Heads&, std::size_t, std::size_t) {}
};

struct ValueRows {
  REFIMPL_INLINE void place(const Heads& h, std::size_t token, std::size_t head, std::size_t i, f32 v0, f32 v1, int n) {
    const bool hidden = h.visible && !h.visible[token];
    const std::size_t slot = h.slot[token], half = h.head_dim / 2;
    const auto put = [&](std::size_t first, f32 v) {
      float* row = values_of(h, head, slot, first);
      const std::size_t at = first % kPanel;
      const int here = at + n <= kPanel ? n : static_cast<int>(kPanel - at);
      if (hidden) v = set1(0.0f);
      if (here == n) return store_first(row + at, v, n);
      float lanes[kLanes];
      store(lanes, v);
      float* next = values_of(h, head, slot, first + here);
      for (int l = 0; l < n; ++l) (l < here ? row[at + l] : next[l - here]) = lanes[l];
    };
    put(i, v0);
    put(half + i, v1);
  }
  void end(const Heads&, std::size_t, std::size_t) {}
};
