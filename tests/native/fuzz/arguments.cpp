// libFuzzer: bytes as arguments of the C interface. Sizes, lengths, ids, positions and struct sizes are
// whatever the bytes say; every array is as long as it has to be for what a call may accept, which is
// what a C caller answers for. Calls that are accepted are run.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "fuzz/bytes.h"
#include "fuzz/small_model.h"
#include "modernbert.h"
#include "modernbert_ops.h"

namespace {

using fuzz::Bytes;
using fuzz::check;
using fuzz::maybe_wrong;

constexpr std::int64_t kRoom = 64;  // entries of every array; tokens of a pass that may be accepted

// Tensors of the small model, whose declared shapes are right or refused.
modernbert_model* make(Bytes& bytes) {
  static const std::vector<float> zeros(kRoom, 0.5f);
  const double thetas[] = {bytes.once_in(16) ? bytes.take<double>() : 1e4};
  const std::int64_t windows[] = {bytes.take<std::int64_t>()};
  modernbert_config config{maybe_wrong(bytes, sizeof config), 3, 2, 2, 1, 1, 0, windows, thetas, 1e-5, "gelu", nullptr, 0};
  modernbert_module modules[] = {{MODERNBERT_POOLING, "mean cls lasttoken max", 1, 0, nullptr},
                                 {MODERNBERT_NORMALIZE, nullptr, 0, 0, nullptr},
                                 {MODERNBERT_DENSE, nullptr, 0, bytes.number(9), "tanh"}};
  config.modules = bytes.once_in(16) ? nullptr : modules, config.module_count = bytes.take<std::uint8_t>() % 4;
  if (bytes.once_in(16)) modules[0].modes = bytes.once_in(2) ? " " : "median";
  if (bytes.once_in(16)) modules[0].kind = bytes.take<int>();
  if (bytes.once_in(8)) config.vocab = bytes.take<std::int64_t>();
  if (bytes.once_in(8)) config.hidden = bytes.take<std::int64_t>();
  if (bytes.once_in(8)) config.inter = bytes.take<std::int64_t>();
  if (bytes.once_in(8)) config.heads = bytes.take<std::int64_t>();
  if (bytes.once_in(8)) config.types = bytes.take<std::int64_t>();
  if (bytes.once_in(8)) config.norm_eps = bytes.take<double>();
  if (bytes.once_in(8)) config.layers = std::min(bytes.take<std::int64_t>(), std::int64_t{1});  // more would be a lie
  if (bytes.once_in(16)) config.thetas = nullptr;
  static const int zeros_in_file = [] {
    const int descriptor = memfd_create("zeros", 0);
    if (ftruncate(descriptor, kRoom * sizeof(float))) std::abort();
    return descriptor;
  }();
  // Descriptors that the fuzzer itself has open are among those tried: none is read beyond its end.
  modernbert_file file{bytes.once_in(4) ? bytes.take<int>() : zeros_in_file, bytes.number(kRoom)};
  std::vector<modernbert_tensor> tensors;
  std::vector<std::vector<std::int64_t>> shapes;
  for (const auto& [name, shape] : small::shapes())
    shapes.push_back(shape.second ? std::vector<std::int64_t>{shape.first, shape.second}
                                  : std::vector<std::int64_t>{shape.first});
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    if (bytes.once_in(64)) continue;
    modernbert_tensor t{small::shapes()[i].first.c_str(), zeros.data(), MODERNBERT_FLOAT32,
                        static_cast<int>(shapes[i].size()), shapes[i].data(), nullptr};
    if (bytes.once_in(32)) t.storage = static_cast<modernbert_storage>(bytes.take<std::uint8_t>() % 4);
    if (bytes.once_in(64)) t.rank = -bytes.take<std::uint8_t>();
    if (bytes.once_in(64)) t.data = nullptr;
    if (bytes.once_in(8)) t.file = &file, t.data = bytes.once_in(8) ? t.data : nullptr;
    if (bytes.once_in(64)) shapes[i][0] = bytes.take<std::int64_t>();
    tensors.push_back(t);
  }
  modernbert_options options{maybe_wrong(bytes, sizeof options), nullptr, "scalar", 1, nullptr, nullptr};
  if (bytes.once_in(16)) options.threads = -bytes.take<std::uint8_t>();
  if (bytes.once_in(16)) options.dtype = bytes.once_in(2) ? "bfloat16" : "int8";
  modernbert_model* model = nullptr;
  const int status = modernbert_create(&config, tensors.data(), tensors.size(), &options, &model);
  check(status);
  if ((status == MODERNBERT_OK) != (model != nullptr)) std::abort();
  return model;
}

int stop_now(void* left) { return --*static_cast<int*>(left) < 0; }
int tap(void* left, const modernbert_piece* piece) {
  volatile float sum = 0;
  for (std::int64_t i = 0; i < piece->rows * piece->columns; ++i) sum = sum + piece->data[i];
  return stop_now(left);
}

void pass(Bytes& bytes, const modernbert_model* model) {
  modernbert_facts facts{};
  facts.struct_size = sizeof facts;
  check(modernbert_model_facts(model, &facts));
  fuzz::Drawn drawn(bytes, static_cast<std::size_t>(kRoom));
  modernbert_input& input = drawn.input;
  std::vector<float> rows(static_cast<std::size_t>(kRoom * facts.hidden), 0.25f), out(rows.size());
  if (!bytes.once_in(4)) input.ids = drawn.ids.data();
  if (bytes.once_in(4)) input.embeddings = rows.data();
  // Longer than the arrays: the caller's own lie, so it is told by a wrong out_count.
  std::size_t count = static_cast<std::size_t>(drawn.total) * static_cast<std::size_t>(facts.hidden);
  if (!drawn.fits() || bytes.once_in(16)) count = static_cast<std::size_t>(-1) - bytes.take<std::uint8_t>();
  int left = bytes.take<std::uint8_t>();
  const modernbert_run run{maybe_wrong(bytes, sizeof run), bytes.once_in(8) ? -1 : 1, stop_now, &left};
  check(modernbert_forward(model, &input, &run, out.data(), count));
  // No array of a vector a sequence is as long as the ids: only right lengths are tried.
  if (drawn.fits()) {
    const modernbert_embedding wanted{maybe_wrong(bytes, sizeof wanted), bytes.number(9), bytes.once_in(2), bytes.number(9)};
    std::vector<float> vectors(std::size_t{6} * 8);
    const std::size_t width = static_cast<std::size_t>(wanted.width ? wanted.width : facts.width);
    check(modernbert_embed(model, &input, &wanted, &run, vectors.data(), static_cast<std::size_t>(input.sequences) * width));
  }
  check(modernbert_trace(model, &input, 1, bytes.once_in(2), tap, &left, out.data(), count));
  std::uint64_t size;
  check(modernbert_workspace_bytes(model, bytes.take<std::int64_t>(), bytes.take<std::int64_t>(), 1, &size));
}

void operation(Bytes& bytes) {
  static const std::vector<float> x(kRoom * kRoom, 0.5f);
  static std::vector<float> y(kRoom * kRoom);
  std::size_t n[3];
  std::size_t product = 1;
  bool fits = true;
  for (std::size_t& size : n) {
    size = static_cast<std::size_t>(bytes.number(9));
    fits = fits && !__builtin_mul_overflow(product, std::max<std::size_t>(size, 1), &product) && product <= 1000;
  }
  // Sizes that no caller has memory for are refused; those between are not asked for.
  if (!fits && product <= (std::size_t{1} << 44)) return;
  const char* activations[] = {"gelu", "gelu_new", "quick_gelu", "silu", "relu", "tanh", "sigmoid", "linear", "?"};
  const char* activation = activations[bytes.take<std::uint8_t>() % 9];
  const char* dtype = bytes.once_in(2) ? "float32" : "bfloat16";
  const auto storage = static_cast<modernbert_storage>(bytes.take<std::uint8_t>() % 4);
  const std::size_t rows = bytes.take<std::uint8_t>() % 5, panels = bytes.take<std::uint8_t>() % 5;
  switch (bytes.take<std::uint8_t>() % 6) {
    case 0:
      return check(modernbert_op_linear("scalar", dtype, n[0], n[1], n[2], x.data(), x.data(), storage, nullptr, nullptr,
                                        rows, panels, y.data()));
    case 1:
      return check(modernbert_op_linear_glu("scalar", dtype, activation, n[0], n[1], n[2], x.data(), x.data(), storage,
                                            x.data(), rows, panels, y.data()));
    case 2: return check(modernbert_op_layer_norm("scalar", dtype, n[0], n[1], x.data(), x.data(), nullptr, 1e-5f, y.data()));
    case 3: return check(modernbert_op_glu("scalar", dtype, activation, n[0], n[1], x.data(), y.data()));
    case 4: return check(modernbert_op_rope("scalar", dtype, n[0], n[1], n[2], x.data(), x.data(), x.data(), y.data()));
    default:
      return check(modernbert_op_attention("scalar", dtype, n[0], n[1], n[2], bytes.number(9), x.data(), x.data(), x.data(),
                                           nullptr, y.data()));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  Bytes bytes(data, size);
  if (bytes.once_in(3)) {
    operation(bytes);
  } else if (modernbert_model* model = make(bytes)) {
    pass(bytes, model);
    modernbert_close(model);
  }
  return 0;
}
