// libFuzzer: bytes as calls of modernbert_training.h, in any order: shapes, ids, lengths, the ends of sequences,
// labels and struct sizes are whatever the bytes say; every array is as long as it has to be for what a
// call may accept. What is accepted is run, and a pass is begun anew after any refusal.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "fuzz/bytes.h"
#include "fuzz/small_model.h"
#include "modernbert_training.h"

namespace {

using fuzz::Bytes;
using fuzz::check;
using fuzz::maybe_wrong;

constexpr std::size_t kRoom = 64;  // tokens or rows that may be accepted

const char* tier_of(Bytes& bytes) {
  const char* tiers[] = {"scalar", "avx2", "auto", "none"};
  return tiers[bytes.once_in(4) ? bytes.take<std::uint8_t>() % 4 : 0];
}
const char* dtype_of(Bytes& bytes) {
  const char* dtypes[] = {"float32", "bfloat16", "int8", "?"};
  return dtypes[bytes.once_in(8) ? bytes.take<std::uint8_t>() % 4 : 0];
}

// The small model with gradients, whose declared shapes are right or refused.
struct Parameters {
  std::vector<std::vector<std::int64_t>> shapes;
  std::vector<std::vector<float>> weights, gradients;
  std::vector<modernbert_parameter> given;

  explicit Parameters(Bytes& bytes) {
    const auto& all = small::shapes();
    for (const auto& [name, shape] : all) {
      shapes.push_back(shape.second ? std::vector<std::int64_t>{shape.first, shape.second}
                                    : std::vector<std::int64_t>{shape.first});
      weights.emplace_back(static_cast<std::size_t>(small::count(shape)), 0.5f);
      gradients.emplace_back(weights.back().size(), 0.0f);
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (bytes.once_in(64)) continue;
      float* gradient = bytes.once_in(8) ? nullptr : gradients[i].data();
      modernbert_parameter p{all[i].first.c_str(), weights[i].data(), gradient, static_cast<int>(shapes[i].size()),
                             shapes[i].data()};
      if (bytes.once_in(64)) p.rank = -bytes.take<std::uint8_t>();
      if (bytes.once_in(64)) p.weight = nullptr;
      if (bytes.once_in(64)) shapes[i][0] = bytes.take<std::int64_t>();
      given.push_back(p);
    }
  }
};

modernbert_training* make(Bytes& bytes, const Parameters& parameters) {
  const double thetas[] = {bytes.once_in(16) ? bytes.take<double>() : 1e4};
  const std::int64_t windows[] = {bytes.take<std::int64_t>()};
  modernbert_config config{maybe_wrong(bytes, sizeof config), 3, 2, 2, 1, 1, 0, windows, thetas, 1e-5, "gelu", nullptr, 0};
  if (bytes.once_in(16)) config.vocab = bytes.take<std::int64_t>();
  if (bytes.once_in(16)) config.hidden = bytes.take<std::int64_t>();
  if (bytes.once_in(16)) config.inter = bytes.take<std::int64_t>();
  if (bytes.once_in(16)) config.heads = bytes.take<std::int64_t>();
  if (bytes.once_in(16)) config.types = bytes.take<std::int64_t>();
  if (bytes.once_in(16)) config.layers = std::min(bytes.take<std::int64_t>(), std::int64_t{1});
  if (bytes.once_in(16)) config.thetas = nullptr;
  modernbert_training* training = nullptr;
  const int status = modernbert_training_create(&config, parameters.given.data(), parameters.given.size(),
                                                tier_of(bytes), dtype_of(bytes), &training);
  check(status);
  if ((status == MODERNBERT_OK) != (training != nullptr)) std::abort();
  return training;
}

int stop_now(void* left) { return --*static_cast<int*>(left) < 0; }

void forward(Bytes& bytes, modernbert_training* training, const modernbert_run& run, std::size_t* total) {
  fuzz::Drawn drawn(bytes, kRoom);
  std::vector<float> out(2 * kRoom);
  if (!bytes.once_in(32)) drawn.input.ids = drawn.ids.data();
  if (bytes.once_in(16)) drawn.input.embeddings = out.data();
  // Longer than the arrays: the caller's own lie, so it is told by a wrong count.
  const std::size_t count = drawn.fits() && !bytes.once_in(16) ? 2 * static_cast<std::size_t>(drawn.total)
                                                               : static_cast<std::size_t>(-1) - bytes.take<std::uint8_t>();
  const int status = modernbert_training_forward(training, &drawn.input, bytes.take<std::uint8_t>() % 4, &run, out.data(), count);
  check(status);
  if (status == MODERNBERT_OK) *total = static_cast<std::size_t>(drawn.total);
}

// Passes and their ways back, in any order.
void steps(Bytes& bytes, modernbert_training* training) {
  const std::vector<float> d(2 * kRoom, 0.25f);
  std::size_t total = 0;
  for (int calls = bytes.take<std::uint8_t>() % 12; calls > 0; --calls) {
    int left = bytes.once_in(8) ? bytes.take<std::uint8_t>() : 1000;
    const modernbert_run run{maybe_wrong(bytes, sizeof run), bytes.once_in(8) ? -1 : 1, stop_now, &left};
    switch (bytes.take<std::uint8_t>() % 6) {
      case 0: forward(bytes, training, run, &total); break;
      case 1: check(modernbert_training_finish(training, bytes.once_in(8) ? bytes.take<int>() : 1)); break;
      case 2: check(modernbert_training_backward(training, bytes.take<std::int64_t>(), nullptr, 0, &run)); break;
      case 3: {  // as it is meant
        check(modernbert_training_backward(training, 1, d.data(), 2 * total, &run));
        for (std::int64_t part = 0; part >= -1; --part) check(modernbert_training_backward(training, part, nullptr, 0, &run));
        break;
      }
      default:
        check(modernbert_training_backward(training, static_cast<std::int64_t>(bytes.number(3)) - 1,
                                           bytes.once_in(2) ? d.data() : nullptr, 2 * total + bytes.once_in(8), &run));
    }
  }
}

// Rows and updates: sizes that fit into the arrays, or that no caller has memory for.
void operation(Bytes& bytes) {
  static std::vector<float> x(kRoom * kRoom, 0.5f), w(kRoom * kRoom, 0.25f), y(kRoom * kRoom), z(kRoom * kRoom), b(kRoom * kRoom);
  std::size_t n[3], product = 1;
  bool fits = true;
  for (std::size_t& size : n) {
    size = static_cast<std::size_t>(bytes.number(9));
    fits = fits && !__builtin_mul_overflow(product, std::max<std::size_t>(size, 1), &product) && product <= 1000;
  }
  if (!fits && product <= (std::size_t{1} << 44)) return;
  std::vector<std::int64_t> ends(8);
  const std::size_t sequences = bytes.take<std::uint8_t>() % 8;
  std::int64_t last = 0;
  for (auto& end : ends) {
    const std::int64_t more = bytes.once_in(16) ? bytes.number(9) : bytes.take<std::uint8_t>() % 4;
    if (__builtin_add_overflow(last, bytes.once_in(32) ? -(more / 2) : more, &last)) last = -1;
    end = last;
  }
  if (sequences && !bytes.once_in(8)) ends[sequences - 1] = static_cast<std::int64_t>(n[0]);
  std::vector<std::int64_t> labels(16);
  for (auto& label : labels) label = bytes.number(9);
  std::vector<double> losses(labels.size());
  // One axis alone may be longer than an array where the others are 0.
  const std::size_t rows = n[0] > 1000 && n[0] <= (std::size_t{1} << 44) ? 1 : n[0];
  const std::size_t few = n[0] > labels.size() && n[0] <= (std::size_t{1} << 44) ? 1 : n[0];
  const float smoothing = bytes.once_in(8) ? bytes.take<float>() : 0.1f;
  const char *tier = tier_of(bytes), *dtype = dtype_of(bytes);
  const int threads = bytes.once_in(8) ? bytes.take<int>() % 4 : 1;
  float* dx = bytes.once_in(4) ? nullptr : y.data();
  float* dw = bytes.once_in(4) ? nullptr : z.data();
  float* db = bytes.once_in(4) ? nullptr : b.data();
  const char* activations[] = {"gelu", "gelu_new", "quick_gelu", "silu", "relu", "tanh", "sigmoid", "linear", "?"};
  modernbert_update update{maybe_wrong(bytes, sizeof update), 1e-3, 1e-5, 1e-6, 0.9, 0.98, 1e-3,
                           bytes.once_in(8) ? bytes.take<std::int64_t>() : 1};
  if (bytes.once_in(8)) update.beta1 = bytes.take<double>();
  if (bytes.once_in(8)) update.eps = bytes.take<double>();
  switch (bytes.take<std::uint8_t>() % 8) {
    case 0:
      return check(modernbert_rows_linear(tier, dtype, threads, n[0], n[1], n[2], x.data(), w.data(), db, z.data()));
    case 1:
      return check(modernbert_rows_linear_adjoint(tier, dtype, threads, ends.data(), sequences, n[0], n[1], n[2], x.data(),
                                                  w.data(), w.data(), dx, dw, db));
    case 2:
      return check(modernbert_rows_cross_entropy(tier, dtype, threads, ends.data(), sequences, few, n[1], n[2], x.data(),
                                                 w.data(), nullptr, labels.data(), smoothing, 0.5f, losses.data(), dx,
                                                 dw, db));
    case 3:
      return check(modernbert_rows_layer_norm_adjoint(tier, ends.data(), sequences, n[0], n[1], x.data(), w.data(), w.data(),
                                                      1e-5f, y.data(), dw, db));
    case 4:
      return check(modernbert_rows_glu_adjoint(tier, activations[bytes.take<std::uint8_t>() % 9], n[0], n[1], x.data(),
                                               w.data(), y.data()));
    case 5: {
      static std::vector<unsigned char> visible(kRoom * kRoom, 1);
      for (std::size_t i = 0; i < 8; ++i) visible[i] = bytes.take<std::uint8_t>() % 2;
      return check(modernbert_rows_attention_adjoint(tier, dtype, n[0], n[1], n[2], bytes.number(9), x.data(), w.data(), w.data(),
                                                     x.data(), bytes.once_in(2) ? visible.data() : nullptr, y.data(), z.data(),
                                                     b.data()));
    }
    case 6: return check(modernbert_adamw(tier, threads, &update, rows, y.data(), x.data(), z.data(), b.data()));
    default:
      return check(modernbert_stable_adamw(tier, threads, &update, rows, y.data(), x.data(), z.data(), b.data()));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  Bytes bytes(data, size);
  if (bytes.once_in(3)) {
    operation(bytes);
    return 0;
  }
  const Parameters parameters(bytes);
  if (modernbert_training* training = make(bytes, parameters)) {
    steps(bytes, training);
    modernbert_training_close(training);
  }
  return 0;
}
