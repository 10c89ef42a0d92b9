// Keys and values as attention.inl reads them, float32. Included like gemm.inl, before it.
//
// Per head, keys stand in panels of kPanel slots, [slots / kPanel, head_dim, kPanel]: one vector load
// takes the same component of neighbouring keys. Values are rows, [slots, padded(head_dim)].

inline std::size_t kv_width(std::size_t head_dim) { return round_up(head_dim, kPanel); }

inline std::size_t kv_bytes(std::size_t slots, std::size_t head_dim) {
  return slots * kv_width(head_dim) * sizeof(float);
}

REFIMPL_INLINE float* keys_of(const Heads& h, std::size_t head, std::size_t slot) {
  return static_cast<float*>(h.keys) + (head * h.slots + slot) * kv_width(h.head_dim);
}
REFIMPL_INLINE float* values_of(const Heads& h, std::size_t head, std::size_t slot) {
  return static_cast<float*>(h.values) + (head * h.slots + slot) * kv_width(h.head_dim);
}

// Components i .. i + n and head_dim / 2 further of a token's key, or value.
REFIMPL_INLINE void place_key(const Heads& h, std::size_t token, std::size_t head, std::size_t i, f32 v0, f32 v1,
                              int n) {
  const std::size_t slot = h.slot[token], half = h.head_dim / 2;
  float* column = keys_of(h, head, slot / kPanel * kPanel) + slot % kPanel;
  float a[kLanes], b[kLanes];
  store(a, v0), store(b, v1);
  for (int l = 0; l < n; ++l) {
    column[(i + l) * kPanel] = a[l];
    column[(half + i + l) * kPanel] = b[l];
  }
}

REFIMPL_INLINE void place_value(const Heads& h, std::size_t token, std::size_t head, std::size_t i, f32 v0, f32 v1,
                                int n) {
  const bool hidden = h.visible && !h.visible[token];
  float* row = values_of(h, head, h.slot[token]) + i;
  store_first(row, hidden ? set1(0.0f) : v0, n);
  store_first(row + h.head_dim / 2, hidden ? set1(0.0f) : v1, n);
}
