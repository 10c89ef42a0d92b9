// Softmax cross-entropy of one row of logits, and its gradient in their place. Included after rowwise.inl.
//
// Sums over the classes are taken in float32 over kRun numbers, then in double.

constexpr std::size_t kRun = 512;

inline double cross_entropy(std::size_t classes, std::size_t label, float smoothing, float share, float* x) {
  f32 best = set1(-__builtin_inff());
  for (std::size_t i = 0; i < classes; i += f32::lanes) {
    const int lanes = static_cast<int>(classes - i < f32::lanes ? classes - i : f32::lanes);
    float part[f32::lanes];
    store(part, set1(x[i]));  // lanes that are not there repeat one that is
    store_first(part, load_first(x + i, lanes), lanes);
    best = max(best, load(part));
  }
  const float peak = max(best), at_label = x[label] - peak;
  double total = 0.0, shifted = 0.0;
  for (std::size_t run = 0; run < classes; run += kRun) {
    f32 sums = set1(0.0f), plain = set1(0.0f);
    for_lanes(classes - run < kRun ? classes - run : kRun, [&](std::size_t i, int lanes) {
      const f32 there = ones(lanes), s = mul(sub(load_first(x + run + i, lanes), set1(peak)), there);
      const f32 e = mul(exp(s), there);
      store_first(x + run + i, e, lanes);
      sums = add(sums, e), plain = add(plain, s);
    });
    total += static_cast<double>(sum(sums)), shifted += static_cast<double>(sum(plain));
  }
  const double log_total = __builtin_log(total), each = static_cast<double>(smoothing) / static_cast<double>(classes);
  const f32 by = set1(static_cast<float>(1.0 / total)), low = set1(static_cast<float>(each)), scale = set1(share);
  const float own = x[label] * static_cast<float>(1.0 / total) - (1.0f - smoothing) - static_cast<float>(each);
  for_lanes(classes, [&](std::size_t i, int lanes) {
    store_first(x + i, mul(sub(mul(load_first(x + i, lanes), by), low), scale), lanes);
  });
  x[label] = own * share;
  return -(static_cast<double>(1.0f - smoothing) * (static_cast<double>(at_label) - log_total) +
           each * (shifted - static_cast<double>(classes) * log_total));
}
