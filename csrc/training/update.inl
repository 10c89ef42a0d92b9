// AdamW and StableAdamW on one tensor: MODEL.md (53) - (55), the operations of refimpl/train/optimisers.py in
// their order, each rounded once, no fma: AdamW has the bits of numpy.

REFIMPL_INLINE void moments(std::size_t i, int lanes, f32 g, float* m, float* v, const Update& u, f32& first,
                            f32& second) {
  first = load_first(m + i, lanes), second = load_first(v + i, lanes);
  first = add(first, mul(set1(u.toward), sub(g, first)));
  second = add(mul(second, set1(u.beta)), mul(mul(set1(u.square), g), g));
  store_first(m + i, first, lanes), store_first(v + i, second, lanes);
}

inline void adamw(std::size_t n, float* p, const float* g, float* m, float* v, const Update& u) {
  for_lanes(n, [&](std::size_t i, int lanes) {
    f32 first, second;
    moments(i, lanes, load_first(g + i, lanes), m, v, u, first, second);
    const f32 kept = mul(load_first(p + i, lanes), set1(u.kept));
    const f32 below = add(div(sqrt(second), set1(u.second)), set1(u.eps));
    store_first(p + i, sub(kept, div(mul(set1(u.rate), first), below)), lanes);
  });
}

inline double stable_moments(std::size_t n, const float* g, float* m, float* v, const Update& u) {
  constexpr std::size_t kTogether = 256;
  const f32 floor = set1(u.eps * u.eps);
  double total = 0.0;
  for (std::size_t at = 0; at < n; at += kTogether) {
    f32 sums = set1(0.0f);
    for_lanes(n - at < kTogether ? n - at : kTogether, [&](std::size_t i, int lanes) {
      const f32 grad = load_first(g + at + i, lanes);
      f32 first, second;
      moments(at + i, lanes, grad, m, v, u, first, second);
      sums = add(sums, div(mul(grad, grad), max(floor, second)));
    });
    total += static_cast<double>(sum(sums));
  }
  return total;
}

inline void stable_step(std::size_t n, float* p, const float* m, const float* v, const Update& u) {
  for_lanes(n, [&](std::size_t i, int lanes) {
    const f32 kept = mul(load_first(p + i, lanes), set1(u.kept));
    const f32 below = add(sqrt(load_first(v + i, lanes)), set1(u.eps));
    store_first(p + i, sub(kept, div(mul(set1(u.rate), load_first(m + i, lanes)), below)), lanes);
  });
}
