// The module refimpl.backends._native: checks what comes from Python, lets go of the GIL, calls.
//
// The only file that knows Python, and it knows the engine by its C interface alone; no loops over
// data here. Arrays that are not contiguous, not aligned or of a narrower dtype are copied first; a
// wider dtype is a TypeError, a shape or a value that does not fit a ValueError. Long because every
// check of what Python hands over stands here.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "modernbert.h"
#include "modernbert_ops.h"

namespace py = pybind11;

void check(int status) {
  const std::string text = modernbert_last_error();
  switch (status) {
    case MODERNBERT_OK: return;
    case MODERNBERT_INTERRUPTED: throw py::error_already_set();  // by the handler that raised
    case MODERNBERT_OUT_OF_MEMORY: PyErr_SetString(PyExc_MemoryError, text.c_str()); throw py::error_already_set();
    case MODERNBERT_INTERNAL: throw std::runtime_error(text);
    case MODERNBERT_BAD_FILE: PyErr_SetString(PyExc_OSError, text.c_str()); throw py::error_already_set();
    default: throw std::invalid_argument(text);
  }
}

namespace {

constexpr int kPlain = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
using Float = py::array_t<float, kPlain>;
using Long = py::array_t<std::int64_t, kPlain>;
using Byte = py::array_t<std::uint8_t, kPlain>;
using Shape = std::vector<std::size_t>;

constexpr const char* kEmbedding = "embeddings.tok_embeddings.weight";
constexpr const char* kDtypes[] = {"float32", "bf16x3", "bfloat16", "int8"};

// -- checks ---------------------------------------------------------------------------------------

// Before 3.14 Python ends a daemon thread that asks for the GIL while the interpreter goes down, by
// unwinding its stack, which C++ answers by ending the process. In a catch (...): where that is what was
// caught, and no exception, the thread is held until the process is over, as later Pythons do.
void hold_if_ended() {
  if (!std::current_exception())
    for (;;) pause();
}

// The GIL back for this thread.
void take_gil(PyThreadState* thread) {
  try {
    PyEval_RestoreThread(thread);
  } catch (...) {
    hold_if_ended();
  }
}

thread_local PyThreadState* self = nullptr;  // of a thread that gave the GIL away

// With it, in a callback of the thread that gave it away.
struct Taken {
  Taken() { take_gil(self); }
  ~Taken() { self = PyEval_SaveThread(); }
  Taken(const Taken&) = delete;
};


template <class F>
void check_released(F f) {
  check(released(f));
}

template <class Sizes>
std::string shape_text(const Sizes& sizes, std::size_t n) {
  std::string text;
  for (std::size_t i = 0; i < n; ++i) text += (i ? ", " : "") + std::to_string(sizes[i]);
  return "[" + text + "]";
}

template <class Array>
const Array& shaped(const std::string& name, const Array& x, const Shape& shape) {
  const std::size_t ndim = static_cast<std::size_t>(x.ndim());
  if (ndim == shape.size() && std::equal(shape.begin(), shape.end(), x.shape(), [](std::size_t a, py::ssize_t b) {
        return a == static_cast<std::size_t>(b);
      }))
    return x;
  throw std::invalid_argument(name + " has shape " + shape_text(x.shape(), ndim) + "; it must be " +
                              shape_text(shape, shape.size()));
}

// The shape of an array that must have `ndim` axes; the last may not be empty.
Shape axes(const std::string& name, const py::array& x, std::size_t ndim) {
  const std::string text = name + " has shape " + shape_text(x.shape(), static_cast<std::size_t>(x.ndim()));
  if (static_cast<std::size_t>(x.ndim()) != ndim)
    throw std::invalid_argument(text + "; it must have " + std::to_string(ndim) + " axes");
  if (x.shape(x.ndim() - 1) == 0) throw std::invalid_argument(text + "; the last axis must not be empty");
  return Shape(x.shape(), x.shape() + ndim);
}

const float* optional_data(const std::string& name, const std::optional<Float>& x, const Shape& shape) {
  return x ? shaped(name, *x, shape).data() : nullptr;
}

std::size_t at_least_one(const char* name, py::ssize_t value) {
  if (value < 1)
    throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) + "; it must be at least 1");
  return static_cast<std::size_t>(value);
}

int threads_of(py::ssize_t threads) {
  return static_cast<int>(std::min<std::size_t>(at_least_one("threads", threads), INT_MAX));
}

// A float tensor as a checkpoint stores it: float32, float16, or the bits of bfloat16 as uint16.
// What had to be copied lives as long as this does. in_file: its memory is not looked at, nor copied.
class Stored {
 public:
  Stored(const std::string& name, const py::array& given, bool in_file = false) : array_(plain(name, given, in_file)) {}

  const py::array& array() const { return array_; }
  modernbert_storage storage() const { return storage_; }

 private:
  py::array plain(const std::string& name, const py::array& given, bool in_file) {
    if (py::isinstance<py::array_t<float>>(given)) return in_file ? given : py::array(py::cast<Float>(given));
    const bool half = given.dtype().equal(py::dtype("float16"));  // in this machine's byte order
    if (!half && !py::isinstance<py::array_t<std::uint16_t>>(given))
      throw std::invalid_argument(name + " must be a float32 or float16 array, or uint16 with the bits of bfloat16, " +
                                  "in the machine's byte order");
    storage_ = half ? MODERNBERT_FLOAT16 : MODERNBERT_BFLOAT16;
    return in_file ? given : py::array::ensure(given, kPlain);
  }
  modernbert_storage storage_ = MODERNBERT_FLOAT32;
  py::array array_;
};

// -- single operations ----------------------------------------------------------------------------

Float op_linear(const std::string& tier, const Float& x, const py::array& weight, const std::optional<Float>& bias,
                const std::optional<Float>& residual, py::ssize_t row_split, py::ssize_t panel_split,
                const std::string& dtype) {
  const Shape in = axes("x", x, 2), w = axes("weight", weight, 2);
  const Stored stored("weight", weight);
  shaped("weight", weight, {w[0], in[1]});
  const float* b = optional_data("bias", bias, {w[0]});
  const float* r = optional_data("residual", residual, {in[0], w[0]});
  const std::size_t rows = at_least_one("row_split", row_split), panels = at_least_one("panel_split", panel_split);
  Float y({in[0], w[0]});
  float* out = y.mutable_data();
  check_released([&] {
    return modernbert_op_linear(tier.c_str(), dtype.c_str(), in[0], w[0], in[1], x.data(), stored.array().data(),
                                stored.storage(), b, r, rows, panels, out);
  });
  return y;
}

Float op_linear_glu(const std::string& tier, const Float& x, const py::array& weight, const std::string& activation,
                    const std::optional<Float>& bias, py::ssize_t row_split, py::ssize_t panel_split,
                    const std::string& dtype) {
  const Shape in = axes("x", x, 2), w = axes("weight", weight, 2);
  const Stored stored("weight", weight);
  shaped("weight", weight, {w[0], in[1]});
  const float* b = optional_data("bias", bias, {w[0]});
  const std::size_t rows = at_least_one("row_split", row_split), panels = at_least_one("panel_split", panel_split);
  Float y({in[0], w[0] / 2});
  float* out = y.mutable_data();
  check_released([&] {
    return modernbert_op_linear_glu(tier.c_str(), dtype.c_str(), activation.c_str(), in[0], w[0], in[1], x.data(),
                                    stored.array().data(), stored.storage(), b, rows, panels, out);
  });
  return y;
}

Float op_layer_norm(const std::string& tier, const Float& x, const Float& weight, const std::optional<Float>& bias,
                    float eps, const std::string& dtype) {
  const Shape in = axes("x", x, 2);
  shaped("weight", weight, {in[1]});
  const float* b = optional_data("bias", bias, {in[1]});
  Float y(in);
  float* out = y.mutable_data();
  check_released([&] {
    return modernbert_op_layer_norm(tier.c_str(), dtype.c_str(), in[0], in[1], x.data(), weight.data(), b, eps, out);
  });
  return y;
}

Float op_glu(const std::string& tier, const Float& u, const std::string& activation, const std::string& dtype) {
  const Shape in = axes("u", u, 2);
  if (in[1] % 2) throw std::invalid_argument("u has shape " + shape_text(in, 2) + "; its last axis must be even");
  Float y({in[0], in[1] / 2});
  float* out = y.mutable_data();
  check_released([&] {
    return modernbert_op_glu(tier.c_str(), dtype.c_str(), activation.c_str(), in[0], in[1] / 2, u.data(), out);
  });
  return y;
}

Float op_rope(const std::string& tier, const Float& x, const Float& cos, const Float& sin, const std::string& dtype) {
  const Shape in = axes("x", x, 3);
  shaped("cos", cos, {in[0], in[2] / 2}), shaped("sin", sin, {in[0], in[2] / 2});
  Float y(in);
  float* out = y.mutable_data();
  check_released([&] {
    return modernbert_op_rope(tier.c_str(), dtype.c_str(), in[0], in[1], in[2], x.data(), cos.data(), sin.data(), out);
  });
  return y;
}

Float op_attention(const std::string& tier, const Float& q, const Float& k, const Float& v,
                   const std::optional<py::ssize_t>& window, const std::optional<Byte>& visible,
                   const std::string& dtype) {
  const Shape in = axes("q", q, 3);
  shaped("k", k, in), shaped("v", v, in);
  if (window && *window < 0)
    throw std::invalid_argument("window is " + std::to_string(*window) + "; it must be None or at least 0");
  const std::uint8_t* seen = visible ? shaped("visible", *visible, {in[0]}).data() : nullptr;
  Float y(in);
  float* out = y.mutable_data();
  check_released([&] {
    return modernbert_op_attention(tier.c_str(), dtype.c_str(), in[0], in[1], in[2], window.value_or(-1), q.data(),
                                   k.data(), v.data(), seen, out);
  });
  return y;
}

// -- the engine -----------------------------------------------------------------------------------

// Python runs signal handlers in its main thread alone; others need not ask, nor wait for the GIL.
bool in_main_thread() {
  try {
    const py::module_ threading = py::module_::import("threading");
    return threading.attr("get_ident")().equal(threading.attr("main_thread")().attr("ident"));
  } catch (...) {
    hold_if_ended();
    throw;
  }
}

// Ctrl-C and other signals: Python's handlers run here. Not 0 when one of them raised.
int interrupted(void*) {
  const Taken gil;
  return PyErr_CheckSignals();
}

// A Python function behind a C callback; what it raises is raised when the C function has returned.
struct Callback {
  py::function f;
  std::exception_ptr error = nullptr;

  template <class Call>
  int operator()(Call call) {
    const Taken gil;
    try {
      if (!error) call(f);
    } catch (...) {
      hold_if_ended();
      error = std::current_exception();
    }
    return error != nullptr;
  }
  void rethrow() const {
    if (error) std::rethrow_exception(error);
  }
};

struct Close {
  void operator()(modernbert_model* model) const { modernbert_close(model); }
};

// modernbert_module of a dict with its fields, and the texts that it points to.
class NamedModule {
 public:
  explicit NamedModule(const py::dict& given)
      : modes_(given["modes"].cast<std::string>()), activation_(given["activation"].cast<std::string>()),
        kind_(given["kind"].cast<int>()), prompt_left_out_(given["prompt_left_out"].cast<bool>()),
        width_(given["width"].cast<std::int64_t>()) {}

  modernbert_module plain() const {
    return {kind_, modes_.c_str(), prompt_left_out_, width_, activation_.c_str()};
  }

 private:
  std::string modes_, activation_;
  int kind_;
  bool prompt_left_out_;
  std::int64_t width_;
};

class PyEngine {
 public:
  PyEngine(const py::dict& given, const py::dict& params, const std::string& tier, const std::string& dtype,
           const std::optional<py::function>& reading, const std::optional<py::function>& packed,
           const std::optional<std::pair<int, std::int64_t>>& place) {
    check(modernbert_op_offered(tier.c_str(), dtype.c_str()));
    const auto size = [&](const char* name) { return given[name].cast<std::int64_t>(); };
    const auto given_windows = given["windows"].cast<std::vector<std::optional<std::int64_t>>>();
    const auto thetas = given["thetas"].cast<std::vector<double>>();
    if (given_windows.size() != thetas.size()) throw std::invalid_argument("windows and thetas differ in length");
    std::vector<std::int64_t> windows;
    for (const auto& window : given_windows) {
      if (window && *window < 0) throw std::invalid_argument("windows must be None or at least 0");
      windows.push_back(window.value_or(-1));
    }
    const auto kept = given["kept"].cast<std::vector<std::uint32_t>>();
    if (kept.size() != thetas.size()) throw std::invalid_argument("kept and thetas differ in length");
    const std::string activation = given["activation"].cast<std::string>();
    const std::string pooling = given["classifier_pooling"].cast<std::string>();
    const std::string classifier_activation = given["classifier_activation"].cast<std::string>();
    std::vector<NamedModule> named_modules;
    for (const auto& module : given["modules"]) named_modules.emplace_back(py::cast<py::dict>(module));
    std::vector<modernbert_module> modules;
    for (const NamedModule& module : named_modules) modules.push_back(module.plain());
    const modernbert_config config{sizeof config,   size("vocab"), size("hidden"),
                                   size("inter"),   size("heads"), static_cast<std::int64_t>(windows.size()),
                                   size("types"),   windows.data(), thetas.data(),
                                   given["norm_eps"].cast<double>(), activation.c_str(),
                                   modules.data(),  modules.size(), kept.data(),
                                   size("labels"),  pooling.c_str(), classifier_activation.c_str()};
    std::vector<std::string> names;
    std::vector<Stored> stored;
    find_tensors(params, !modules.empty(), config.labels > 0, place.has_value(), names, stored);
    const modernbert_file file = place ? modernbert_file{place->first, place->second} : modernbert_file{};
    std::vector<modernbert_tensor> tensors;
    std::vector<std::vector<std::int64_t>> shapes;
    for (std::size_t i = 0; i < stored.size(); ++i) {
      const py::array& x = stored[i].array();
      shapes.emplace_back(x.shape(), x.shape() + x.ndim());
      const bool in_file = place && names[i] == kEmbedding;
      tensors.push_back({names[i].c_str(), in_file ? nullptr : x.data(), stored[i].storage(),
                         static_cast<int>(x.ndim()), shapes.back().data(), in_file ? &file : nullptr});
    }
    struct Told {
      Callback reading, packed;
    } told{{reading.value_or(py::function())}, {packed.value_or(py::function())}};
    const auto before = [](void* user, std::int64_t layer) {
      return static_cast<Told*>(user)->reading([&](const py::function& f) { f(layer); });
    };
    const auto after = [](void* user, std::int64_t layer) {
      static_cast<Told*>(user)->packed([&](const py::function& f) { f(layer); });
    };
    const modernbert_options options{
        sizeof options, dtype.c_str(), tier.c_str(), 0,      packed ? +after : nullptr, reading ? +before : nullptr,
        &told,          0,             nullptr};
    modernbert_model* model = nullptr;
    const int status =
        released([&] { return modernbert_create(&config, tensors.data(), tensors.size(), &options, &model); });
    model_.reset(model);
    told.reading.rethrow(), told.packed.rethrow();
    check(status);
    facts_.struct_size = sizeof facts_;
    check(modernbert_model_facts(model, &facts_));
  }

  // The model of a folder whose pack is fresh. OSError where it is not.
  static std::unique_ptr<PyEngine> open_packed(const std::string& folder, const std::string& tier,
                                               const std::string& dtype, const std::optional<std::string>& packs) {
    const modernbert_options options = options_of(tier, dtype, packs, MODERNBERT_PACK_NEEDED);
    modernbert_model* model = nullptr;
    const int status = released([&] { return modernbert_open(folder.c_str(), &options, &model); });
    std::unique_ptr<PyEngine> out(new PyEngine(model));
    check(status);
    check(modernbert_model_facts(model, &out->facts_));
    return out;
  }
  static void make_pack(const std::string& folder, const std::string& tier, const std::string& dtype,
                        const std::optional<std::string>& packs) {
    const modernbert_options options = options_of(tier, dtype, packs, MODERNBERT_PACK_TAKEN);
    check_released([&] { return modernbert_pack(folder.c_str(), &options); });
  }
  std::optional<std::string> pack() const { return facts_.pack ? std::optional<std::string>(facts_.pack) : std::nullopt; }

  Float forward(const std::optional<Long>& ids, const std::optional<Float>& embeds, const Long& cu_seqlens,
                const std::optional<Long>& token_types, const std::optional<Long>& positions,
                const std::optional<Byte>& visible, py::ssize_t threads) const {
    const modernbert_input input = input_of(ids, embeds, cu_seqlens, token_types, positions, visible);
    const modernbert_run run = run_of(threads);
    Float out = output_of(input);
    float* y = out.mutable_data();
    const std::size_t count = static_cast<std::size_t>(out.size());
    check_released([&] { return modernbert_forward(model_.get(), &input, &run, y, count); });
    return out;
  }

  Float embed(const std::optional<Long>& ids, const std::optional<Float>& embeds, const Long& cu_seqlens,
              const std::optional<Long>& token_types, const std::optional<Long>& positions,
              const std::optional<Byte>& visible, py::ssize_t threads, std::int64_t width, bool normalize,
              std::int64_t prompt_tokens) const {
    const modernbert_input input = input_of(ids, embeds, cu_seqlens, token_types, positions, visible);
    const modernbert_run run = run_of(threads);
    const modernbert_embedding wanted{sizeof wanted, width, normalize, prompt_tokens};
    Float out({std::max<std::int64_t>(input.sequences, 0), width > 0 ? width : facts_.width});
    float* y = out.mutable_data();
    const std::size_t count = static_cast<std::size_t>(out.size());
    check_released([&] { return modernbert_embed(model_.get(), &input, &wanted, &run, y, count); });
    return out;
  }

  Float logits(const std::optional<Long>& ids, const std::optional<Float>& embeds, const Long& cu_seqlens,
               const std::optional<Long>& token_types, const std::optional<Long>& positions,
               const std::optional<Byte>& visible, py::ssize_t threads) const {
    const modernbert_input input = input_of(ids, embeds, cu_seqlens, token_types, positions, visible);
    const modernbert_run run = run_of(threads);
    Float out({std::max<std::int64_t>(input.sequences, 0), facts_.labels});
    float* y = out.mutable_data();
    const std::size_t count = static_cast<std::size_t>(out.size());
    check_released([&] { return modernbert_logits(model_.get(), &input, &run, y, count); });
    return out;
  }

  Float trace(const std::optional<Long>& ids, const std::optional<Float>& embeds, const Long& cu_seqlens,
              const std::optional<Long>& token_types, const std::optional<Long>& positions,
              const std::optional<Byte>& visible, py::ssize_t threads, bool fused, const py::function& tap) const {
    const modernbert_input input = input_of(ids, embeds, cu_seqlens, token_types, positions, visible);
    const int n = threads_of(threads);
    Float out = output_of(input);
    float* y = out.mutable_data();
    const std::size_t count = static_cast<std::size_t>(out.size());
    Callback tell{tap};
    const auto tell_piece = [](void* user, const modernbert_piece* p) {
      return (*static_cast<Callback*>(user))([&](const py::function& f) {
        const py::object layer = p->layer < 0 ? py::object(py::none()) : py::int_(p->layer);
        const char* step = p->layer < 0 ? p->step : std::strrchr(p->step, '.') + 1;
        f(step, layer, p->first_row, Float({p->rows, p->columns}, p->data));
      });
    };
    const int status =
        released([&] { return modernbert_trace(model_.get(), &input, n, fused, tell_piece, &tell, y, count); });
    tell.rethrow();
    check(status);
    return out;
  }

  std::string tier() const { return facts_.tier; }
  std::string dtype() const { return facts_.dtype; }
  std::uint64_t packed_bytes() const { return facts_.packed_bytes; }
  std::uint64_t workspace_bytes(std::int64_t total, std::int64_t batch, py::ssize_t threads) const {
    std::uint64_t bytes;
    check(modernbert_workspace_bytes(model_.get(), total, batch, threads_of(threads), &bytes));
    return bytes;
  }

 private:
  explicit PyEngine(modernbert_model* model) : model_(model) { facts_.struct_size = sizeof facts_; }
  static modernbert_options options_of(const std::string& tier, const std::string& dtype,
                                       const std::optional<std::string>& packs, int pack) {
    return {sizeof(modernbert_options), dtype.c_str(), tier.c_str(), 0, nullptr, nullptr, nullptr, pack,
            packs ? packs->c_str() : nullptr};
  }
  static modernbert_run run_of(py::ssize_t threads) {
    return {sizeof(modernbert_run), threads_of(threads), in_main_thread() ? interrupted : nullptr, nullptr};
  }

  // The encoder's tensors of `params`, its modules' ("2_Dense.linear.weight") where it `has_modules` and its
  // classifier's where it `classifies`; the embedding's memory does not matter when it is `in_file`.
  void find_tensors(const py::dict& params, bool has_modules, bool classifies, bool in_file, std::vector<std::string>& names,
                    std::vector<Stored>& stored) {
    for (const auto& [key, value] : params) {
      const std::string name = py::cast<std::string>(key);
      const auto starts = [&](const char* prefix) { return name.rfind(prefix, 0) == 0; };
      const bool of_a_module = has_modules && !name.empty() && name[0] >= '0' && name[0] <= '9';
      const bool of_the_classifier = classifies && (starts("head.") || starts("classifier."));
      if (!(starts("embeddings.") || starts("layers.") || starts("final_norm.") || of_a_module || of_the_classifier))
        continue;
      if (!py::isinstance<py::array>(value)) throw std::invalid_argument("params['" + name + "'] must be an array");
      names.push_back(name);
      const bool embedding = name == kEmbedding;
      stored.emplace_back("params['" + name + "']", py::cast<py::array>(value), embedding && in_file);
      if (embedding && !in_file) embedding_ = stored.back().array();
    }
  }

  modernbert_input input_of(const std::optional<Long>& ids, const std::optional<Float>& embeds, const Long& cu_seqlens,
                            const std::optional<Long>& token_types, const std::optional<Long>& positions,
                            const std::optional<Byte>& visible) const {
    modernbert_input input{};
    input.struct_size = sizeof input;
    input.sequences = static_cast<std::int64_t>(axes("cu_seqlens", cu_seqlens, 1)[0]) - 1;
    input.cu_seqlens = cu_seqlens.data();
    if (ids.has_value() == embeds.has_value()) throw std::invalid_argument("exactly one of ids and embeds is needed");
    const std::size_t total = static_cast<std::size_t>(input.cu_seqlens[input.sequences]);
    if (ids) input.ids = shaped("ids", *ids, {total}).data();
    if (embeds) input.embeddings = shaped("embeds", *embeds, {total, static_cast<std::size_t>(facts_.hidden)}).data();
    if (token_types) input.token_types = shaped("token_types", *token_types, {total}).data();
    if (positions) input.positions = shaped("positions", *positions, {total}).data();
    if (visible) input.visible = shaped("visible", *visible, {total}).data();
    return input;
  }

  // As many rows as ids or embeddings have, which `input` was found to fit.
  Float output_of(const modernbert_input& input) const {
    return Float({input.cu_seqlens[input.sequences], facts_.hidden});
  }

  py::array embedding_;  // which the model goes on reading, unless it reads a file
  std::unique_ptr<modernbert_model, Close> model_;
  modernbert_facts facts_{};
};

// -- facts ----------------------------------------------------------------------------------------

Float scores(const std::string& function, const Float& logits) {
  const Shape shape = axes("logits", logits, 2);
  Float out(shape);
  check(modernbert_scores(function.c_str(), shape[0], shape[1], logits.data(), out.mutable_data()));
  return out;
}

std::vector<std::string> tiers() {
  std::vector<std::string> names;
  for (std::size_t i = 0; const char* name = modernbert_tier_name(i); ++i)
    if (!*modernbert_tier_missing(i)) names.push_back(name);
  return names;
}

py::dict missing_tiers() {
  py::dict why;
  for (std::size_t i = 0; const char* name = modernbert_tier_name(i); ++i)
    if (const char* reason = modernbert_tier_missing(i); *reason) why[name] = reason;
  return why;
}

std::string best_tier(const std::string& cap) {
  const char* tier;
  check(modernbert_best_tier(cap.c_str(), nullptr, &tier));
  return tier;
}

std::vector<std::string> dtypes(const std::string& tier) {
  check(modernbert_op_offered(tier.c_str(), kDtypes[0]));
  std::vector<std::string> names;
  for (const char* dtype : kDtypes)
    if (modernbert_op_offered(tier.c_str(), dtype) == MODERNBERT_OK) names.push_back(dtype);
  return names;
}

}  // namespace

Released::Released() { self = PyEval_SaveThread(); }
Released::~Released() { take_gil(self); }

PYBIND11_MODULE(_native, m) {
  using py::arg;
  const py::none none;
  m.doc() = "The CPU engine of refimpl: kernels per tier, and the whole encoder on packed tokens.";
  m.attr("compiler") = modernbert_compiler();
  m.def("tiers", &tiers, "Tiers that can run here, best first.");
  m.def("missing_tiers", &missing_tiers, "Tier of this build -> why it cannot run here.");
  m.def("best_tier", &best_tier, arg("cap") = "",
        "The best tier that can run here and is not above `cap`.");
  m.def("dtypes", &dtypes, arg("tier"), "The dtypes that a tier offers.");
  m.def("default_threads", &modernbert_default_threads,
        "REFIMPL_THREADS, else OMP_NUM_THREADS, else the least of affinity, cgroup quota and cores.");
  m.def("give_way", &modernbert_give_way,
        "From here on the calling thread is in the background: its loops have helpers of their own, which have a lower priority, as it has.");

  m.def("scores", &scores, arg("function"), arg("logits"),
        "logits [rows, columns] by \"none\", \"sigmoid\", \"softmax\" over each row, or an activation; in double, rounded once.");

  m.def("linear", &op_linear, arg("tier"), arg("x"), arg("weight"), arg("bias") = none, arg("residual") = none,
        arg("row_split") = 84, arg("panel_split") = 1, arg("dtype") = "float32",
        "x [m, k] W^T + bias + residual, W [n, k]; done `row_split` rows, `panel_split` panels at a time.");
  m.def("linear_glu", &op_linear_glu, arg("tier"), arg("x"), arg("weight"), arg("activation"), arg("bias") = none,
        arg("row_split") = 84, arg("panel_split") = 1, arg("dtype") = "float32",
        "glu(x [m, k] W^T + bias) in one go, W [n, k] gate rows first -> [m, n / 2].");
  m.def("layer_norm", &op_layer_norm, arg("tier"), arg("x"), arg("weight"), arg("bias") = none, arg("eps") = 1e-5f,
        arg("dtype") = "float32", "LayerNorm of each row of x [rows, n].");
  m.def("glu", &op_glu, arg("tier"), arg("u"), arg("activation"), arg("dtype") = "float32",
        "act(u[:, :inter]) * u[:, inter:], u [rows, 2 inter].");
  m.def("rope", &op_rope, arg("tier"), arg("x"), arg("cos"), arg("sin"), arg("dtype") = "float32",
        "x [seq, heads, head_dim] rotated by cos, sin [seq, head_dim / 2].");
  m.def("attention", &op_attention, arg("tier"), arg("q"), arg("k"), arg("v"), arg("window") = none,
        arg("visible") = none, arg("dtype") = "float32",
        "Softmax attention of one sequence; all [seq, heads, head_dim], visible [seq] or None.");

  py::class_<PyEngine>(m, "Engine", "The encoder with its weights packed for one tier.")
      .def(py::init<const py::dict&, const py::dict&, const std::string&, const std::string&,
                    const std::optional<py::function>&, const std::optional<py::function>&,
                    const std::optional<std::pair<int, std::int64_t>>&>(),
           arg("plan"), arg("params"), arg("tier"), arg("dtype") = "float32", arg("reading") = none,
           arg("packed") = none, arg("embedding_in") = none,
           "embedding_in: descriptor and offset of the file that holds the token embedding, read from there instead.")
      .def_static("open_packed", &PyEngine::open_packed, arg("folder"), arg("tier"), arg("dtype"), arg("packs") = none,
                  "The model of a folder over its fresh pack, which is in the folder `packs`, or beside it.")
      .def_static("make_pack", &PyEngine::make_pack, arg("folder"), arg("tier"), arg("dtype"), arg("packs") = none,
                  "Write the pack of a folder, unless there is a fresh one.")
      .def_property_readonly("pack", &PyEngine::pack, "The path of the pack that is mapped, or None.")
      .def("trace", &PyEngine::trace, arg("ids"), arg("embeds"), arg("cu_seqlens"), arg("token_types") = none,
           arg("positions") = none, arg("visible") = none, arg("threads") = 1, arg("fused") = false, py::kw_only(), arg("tap"),
           "The same, with tap(step, layer or None, first_row, rows [rows, columns]) called at every step.")
      .def("forward", &PyEngine::forward, arg("ids"), arg("embeds"), arg("cu_seqlens"), arg("token_types") = none,
           arg("positions") = none, arg("visible") = none, arg("threads") = 1, "Last hidden state [total, hidden] of packed sequences.")
      .def("embed", &PyEngine::embed, arg("ids"), arg("embeds"), arg("cu_seqlens"), arg("token_types") = none,
           arg("positions") = none, arg("visible") = none, arg("threads") = 1, py::kw_only(), arg("width") = 0,
           arg("normalize") = false, arg("prompt_tokens") = 0,
           "One vector a sequence, [sequences, width]: the plan's modules after a forward pass.")
      .def("logits", &PyEngine::logits, arg("ids"), arg("embeds"), arg("cu_seqlens"), arg("token_types") = none,
           arg("positions") = none, arg("visible") = none, arg("threads") = 1,
           "Of the plan's classifier, or of modules that end in a Dense, [sequences, labels].")
      .def("packed_bytes", &PyEngine::packed_bytes, "Bytes of the packed matrices.")
      .def("workspace_bytes", &PyEngine::workspace_bytes, arg("total"), arg("batch"), arg("threads") = 1,
           "Bytes that a forward pass needs, but for index arrays and rotary tables; up to 16 MiB are kept for the next.")
      .def_property_readonly("tier", &PyEngine::tier)
      .def_property_readonly("dtype", &PyEngine::dtype);

  bind_text(m);
  bind_training(m);
}
