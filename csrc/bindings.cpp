// The Python module `refimpl._native`: checks what comes from Python, lets go of the GIL, calls.
//
// The only file that knows Python; no loops over data here. Arrays that are not contiguous, not
// aligned or of a narrower dtype are copied first; a wider dtype is a TypeError, a shape or a value
// that does not fit a ValueError.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/cpu.h"
#include "base/pool.h"
#include "engine/engine.h"
#include "engine/single.h"

namespace py = pybind11;
using namespace refimpl;

namespace {

constexpr int kPlain = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
using Float = py::array_t<float, kPlain>;
using Long = py::array_t<std::int64_t, kPlain>;
using Byte = py::array_t<std::uint8_t, kPlain>;
using Shape = std::vector<std::size_t>;

constexpr std::pair<const char*, Dtype> kDtypes[] = {
    {"float32", Dtype::float32}, {"bf16x3", Dtype::bf16x3}, {"bfloat16", Dtype::bfloat16}};

// -- checks ---------------------------------------------------------------------------------------

Activation activation_of(const std::string& name) {
  static const std::pair<const char*, Activation> names[] = {
      {"gelu", Activation::gelu},
      {"gelu_new", Activation::gelu_tanh},
      {"gelu_pytorch_tanh", Activation::gelu_tanh},
      {"quick_gelu", Activation::quick_gelu},
      {"silu", Activation::silu},
      {"swish", Activation::silu},
      {"relu", Activation::relu},
      {"tanh", Activation::tanh},
      {"sigmoid", Activation::sigmoid},
      {"linear", Activation::linear}};
  for (const auto& [known, activation] : names)
    if (name == known) return activation;
  throw std::invalid_argument("activation '" + name + "' is unknown");
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

void at_least_one(const char* name, py::ssize_t value) {
  if (value < 1) throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) + "; it must be at least 1");
}

// The kernels of a tier that can run here, for a dtype that it offers.
const Kernels& named_kernels(const std::string& tier, const std::string& dtype) {
  const Tier known = named_tier(tier);
  std::string offered;
  for (const auto& [name, value] : kDtypes) {
    const Kernels* kernels = kernels_of(known, value);
    if (kernels && dtype == name) return *kernels;
    if (kernels) offered += (offered.empty() ? "" : ", ") + std::string(name);
  }
  throw std::invalid_argument("dtype '" + dtype + "' is not available on tier '" + tier + "': " + offered);
}

// A float tensor as a checkpoint stores it: float32, float16, or the bits of bfloat16 as uint16.
// What had to be copied lives as long as this does.
class Stored {
 public:
  Stored(const std::string& name, const py::array& given, const Shape& shape) : array_(plain(name, given)) {
    shaped(name, array_, shape);
    tensor.data = array_.data();
  }
  Tensor tensor;

 private:
  py::array plain(const std::string& name, const py::array& given) {
    if (py::isinstance<py::array_t<float>>(given)) return py::cast<Float>(given);
    const char kind = given.dtype().kind();
    if (given.itemsize() != 2 || (kind != 'f' && kind != 'u'))
      throw std::invalid_argument(name + " must be a float32 or float16 array, or uint16 with the bits of bfloat16");
    tensor.storage = kind == 'f' ? Storage::float16 : Storage::bfloat16;
    return py::array::ensure(given, kPlain);
  }
  py::array array_;
};

// -- single operations ----------------------------------------------------------------------------

Float op_linear(const std::string& tier, const Float& x, const py::array& weight, const std::optional<Float>& bias,
                const std::optional<Float>& residual, py::ssize_t row_split, py::ssize_t panel_split,
                const std::string& dtype) {
  const Kernels& kernels = named_kernels(tier, dtype);
  const Shape in = axes("x", x, 2), w = axes("weight", weight, 2);
  const Stored stored("weight", weight, {w[0], in[1]});
  const float* b = optional_data("bias", bias, {w[0]});
  const float* r = optional_data("residual", residual, {in[0], w[0]});
  at_least_one("row_split", row_split), at_least_one("panel_split", panel_split);
  Float y({in[0], w[0]});
  float* out = y.mutable_data();
  py::gil_scoped_release release;
  single_linear(kernels, in[0], w[0], in[1], x.data(), stored.tensor, b, r, static_cast<std::size_t>(row_split),
                static_cast<std::size_t>(panel_split), out);
  return y;
}

Float op_linear_glu(const std::string& tier, const Float& x, const py::array& weight, const std::string& activation,
                    const std::optional<Float>& bias, py::ssize_t row_split, py::ssize_t panel_split,
                    const std::string& dtype) {
  const Kernels& kernels = named_kernels(tier, dtype);
  const Activation act = activation_of(activation);
  const Shape in = axes("x", x, 2), w = axes("weight", weight, 2);
  if (w[0] % 2) throw std::invalid_argument("weight has shape " + shape_text(w, 2) + "; its first axis must be even");
  const Stored stored("weight", weight, {w[0], in[1]});
  const float* b = optional_data("bias", bias, {w[0]});
  at_least_one("row_split", row_split), at_least_one("panel_split", panel_split);
  Float y({in[0], w[0] / 2});
  float* out = y.mutable_data();
  py::gil_scoped_release release;
  single_linear_glu(kernels, act, in[0], w[0], in[1], x.data(), stored.tensor, b,
                    static_cast<std::size_t>(row_split), static_cast<std::size_t>(panel_split), out);
  return y;
}

Float op_layer_norm(const std::string& tier, const Float& x, const Float& weight, const std::optional<Float>& bias,
                    float eps, const std::string& dtype) {
  const Kernels& kernels = named_kernels(tier, dtype);
  const Shape in = axes("x", x, 2);
  shaped("weight", weight, {in[1]});
  const float* b = optional_data("bias", bias, {in[1]});
  Float y(in);
  float* out = y.mutable_data();
  py::gil_scoped_release release;
  kernels.layer_norm(in[0], in[1], x.data(), in[1], weight.data(), b, eps, out, in[1]);
  return y;
}

Float op_glu(const std::string& tier, const Float& u, const std::string& activation, const std::string& dtype) {
  const Kernels& kernels = named_kernels(tier, dtype);
  const Activation act = activation_of(activation);
  const Shape in = axes("u", u, 2);
  if (in[1] % 2) throw std::invalid_argument("u has shape " + shape_text(in, 2) + "; its last axis must be even");
  const std::size_t inter = in[1] / 2;
  Float y({in[0], inter});
  float* out = y.mutable_data();
  py::gil_scoped_release release;
  kernels.glu(in[0], inter, act, u.data(), in[1], out, inter);
  return y;
}

// [seq, heads, head_dim] with an even head_dim
Shape head_axes(const char* name, const Float& x) {
  const Shape in = axes(name, x, 3);
  if (in[2] % 2)
    throw std::invalid_argument(std::string(name) + " has shape " + shape_text(in, 3) + "; head_dim must be even");
  return in;
}

Float op_rope(const std::string& tier, const Float& x, const Float& cos, const Float& sin, const std::string& dtype) {
  const Kernels& kernels = named_kernels(tier, dtype);
  const Shape in = head_axes("x", x);
  shaped("cos", cos, {in[0], in[2] / 2}), shaped("sin", sin, {in[0], in[2] / 2});
  Float y(in);
  float* out = y.mutable_data();
  py::gil_scoped_release release;
  single_rope(kernels, in[0], in[1], in[2], x.data(), cos.data(), sin.data(), out);
  return y;
}

Float op_attention(const std::string& tier, const Float& q, const Float& k, const Float& v,
                   const std::optional<py::ssize_t>& window, const std::optional<Byte>& visible, const std::string& dtype) {
  const Kernels& kernels = named_kernels(tier, dtype);
  const Shape in = head_axes("q", q);
  shaped("k", k, in), shaped("v", v, in);
  if (window && *window < 0)
    throw std::invalid_argument("window is " + std::to_string(*window) + "; it must be None or at least 0");
  const std::uint8_t* seen = visible ? shaped("visible", *visible, {in[0]}).data() : nullptr;
  Float y(in);
  float* out = y.mutable_data();
  py::gil_scoped_release release;
  single_attention(kernels, in[0], in[1], in[2], window.value_or(-1), q.data(), k.data(), v.data(), seen, out);
  return y;
}

// -- the engine -----------------------------------------------------------------------------------

// Tensors of a checkpoint by name, as the engine reads them.
class Params {
 public:
  explicit Params(const py::dict& tensors) : tensors_(tensors) {}

  Tensor get(const std::string& name, const Shape& shape) {
    if (!tensors_.contains(name)) throw std::invalid_argument("params lack '" + name + "'");
    const py::object given = tensors_[name.c_str()];
    if (!py::isinstance<py::array>(given)) throw std::invalid_argument("params['" + name + "'] must be an array");
    held_.emplace_back("params['" + name + "']", py::cast<py::array>(given), shape);
    return held_.back().tensor;
  }
  Tensor maybe(const std::string& name, const Shape& shape) {
    return tensors_.contains(name) ? get(name, shape) : Tensor{};
  }
  const Stored& last() const { return held_.back(); }

 private:
  py::dict tensors_;
  std::vector<Stored> held_;
};

// Python runs signal handlers in its main thread alone; others need not ask, nor wait for the GIL.
bool in_main_thread() {
  const py::module_ threading = py::module_::import("threading");
  return threading.attr("get_ident")().equal(threading.attr("main_thread")().attr("ident"));
}

// Ctrl-C and other signals: Python's handlers run here. True when one of them raised.
bool interrupted() {
  py::gil_scoped_acquire acquire;
  return PyErr_CheckSignals() != 0;
}

class PyEngine {
 public:
  PyEngine(const py::dict& given, const py::dict& tensors, const std::string& tier, const std::string& dtype,
           const std::optional<py::function>& packed) {
    Plan plan{given["vocab"].cast<std::size_t>(),
              given["hidden"].cast<std::size_t>(),
              given["inter"].cast<std::size_t>(),
              given["heads"].cast<std::size_t>(),
              given["norm_eps"].cast<float>(),
              activation_of(given["activation"].cast<std::string>()),
              {}};
    const auto windows = given["windows"].cast<std::vector<std::optional<py::ssize_t>>>();
    const auto thetas = given["thetas"].cast<std::vector<double>>();
    if (windows.size() != thetas.size()) throw std::invalid_argument("windows and thetas differ in length");
    for (std::size_t i = 0; i < windows.size(); ++i) {
      if (windows[i] && *windows[i] < 0) throw std::invalid_argument("windows must be None or at least 0");
      plan.layers.push_back({windows[i].value_or(-1), thetas[i]});
    }
    Params params(tensors);
    const Weights weights = find_weights(plan, params);
    const Kernels& kernels = named_kernels(tier, dtype);
    tier_ = tier, dtype_ = dtype;
    std::function<void(std::size_t)> tell;
    if (packed)
      tell = [&](std::size_t layer) {
        py::gil_scoped_acquire acquire;
        (*packed)(layer);
      };
    py::gil_scoped_release release;
    engine_ = std::make_unique<Engine>(kernels, std::move(plan), weights, default_threads(), tell);
  }

  Float forward(const std::optional<Long>& ids, const std::optional<Float>& embeds, const Long& cu_seqlens,
                const std::optional<Long>& positions, const std::optional<Byte>& visible, py::ssize_t threads) const {
    const Batch batch = checked(ids, embeds, cu_seqlens, positions, visible, threads);
    Float out({batch.cu_seqlens.back(), engine_->plan.hidden});
    float* y = out.mutable_data();
    bool (*const stop)() = in_main_thread() ? interrupted : nullptr;
    bool done;
    {
      py::gil_scoped_release release;
      done = engine_->forward(batch, y, static_cast<int>(std::min<py::ssize_t>(threads, kMaxThreads)), stop);
    }
    if (!done) throw py::error_already_set();
    return out;
  }

  Float trace(const std::optional<Long>& ids, const std::optional<Float>& embeds, const Long& cu_seqlens,
              const std::optional<Long>& positions, const std::optional<Byte>& visible, py::ssize_t threads, bool fused,
              const py::function& tap) const {
    const Batch batch = checked(ids, embeds, cu_seqlens, positions, visible, threads);
    Float out({batch.cu_seqlens.back(), engine_->plan.hidden});
    float* y = out.mutable_data();
    py::gil_scoped_release release;
    engine_->trace(batch, y, static_cast<int>(std::min<py::ssize_t>(threads, kMaxThreads)), fused,
                   [&](const Tapped& t) {
                     py::gil_scoped_acquire acquire;
                     const py::object layer = t.layer < 0 ? py::object(py::none()) : py::int_(t.layer);
                     tap(t.step, layer, t.first_row, Float({t.rows, t.columns}, t.data));
                   });
    return out;
  }

  const std::string& tier() const { return tier_; }
  const std::string& dtype() const { return dtype_; }
  std::size_t packed_bytes() const { return engine_->packed_bytes(); }
  std::size_t workspace_bytes(std::size_t total, std::size_t batch, py::ssize_t threads) const {
    at_least_one("threads", threads);
    return engine_->workspace_bytes(total, batch, static_cast<int>(std::min<py::ssize_t>(threads, kMaxThreads)));
  }

 private:
  Batch checked(const std::optional<Long>& ids, const std::optional<Float>& embeds, const Long& cu_seqlens,
                const std::optional<Long>& positions, const std::optional<Byte>& visible, py::ssize_t threads) const {
    at_least_one("threads", threads);
    if (ids.has_value() == embeds.has_value()) throw std::invalid_argument("exactly one of ids and embeds is needed");
    Batch batch{nullptr, nullptr, nullptr, nullptr, lengths(cu_seqlens)};
    const std::size_t total = batch.cu_seqlens.back(), hidden = engine_->plan.hidden;
    if (ids) batch.ids = in_vocabulary(shaped("ids", *ids, {total}));
    if (embeds) batch.embeddings = shaped("embeds", *embeds, {total, hidden}).data();
    if (positions) batch.positions = shaped("positions", *positions, {total}).data();
    if (visible) batch.visible = shaped("visible", *visible, {total}).data();
    return batch;
  }

  Weights find_weights(const Plan& plan, Params& params) {
    const std::size_t hidden = plan.hidden, inter = plan.inter;
    Weights w;
    w.embedding = params.get("embeddings.tok_embeddings.weight", {plan.vocab, hidden});
    embedding_.emplace(params.last());
    w.embedding_norm = params.get("embeddings.norm.weight", {hidden});
    w.embedding_norm_bias = params.maybe("embeddings.norm.bias", {hidden});
    w.final_norm = params.get("final_norm.weight", {hidden});
    w.final_norm_bias = params.maybe("final_norm.bias", {hidden});
    for (std::size_t i = 0; i < plan.layers.size(); ++i) {
      const std::string at = "layers." + std::to_string(i) + ".";
      w.layers.push_back({i ? params.get(at + "attn_norm.weight", {hidden}) : Tensor{},
                          i ? params.maybe(at + "attn_norm.bias", {hidden}) : Tensor{},
                          params.get(at + "attn.Wqkv.weight", {3 * hidden, hidden}),
                          params.maybe(at + "attn.Wqkv.bias", {3 * hidden}),
                          params.get(at + "attn.Wo.weight", {hidden, hidden}),
                          params.maybe(at + "attn.Wo.bias", {hidden}),
                          params.get(at + "mlp_norm.weight", {hidden}),
                          params.maybe(at + "mlp_norm.bias", {hidden}),
                          params.get(at + "mlp.Wi.weight", {2 * inter, hidden}),
                          params.maybe(at + "mlp.Wi.bias", {2 * inter}),
                          params.get(at + "mlp.Wo.weight", {hidden, inter}),
                          params.maybe(at + "mlp.Wo.bias", {hidden})});
    }
    return w;
  }

  static std::vector<std::size_t> lengths(const Long& cu_seqlens) {
    const std::size_t n = axes("cu_seqlens", cu_seqlens, 1)[0];
    const std::int64_t* cu = cu_seqlens.data();
    if (cu[0] != 0) throw std::invalid_argument("cu_seqlens starts with " + std::to_string(cu[0]) + ", not with 0");
    if (!std::is_sorted(cu, cu + n)) throw std::invalid_argument("cu_seqlens falls; each entry must be at least the one before");
    return {cu, cu + n};
  }

  const std::int64_t* in_vocabulary(const Long& ids) const {
    const std::int64_t *first = ids.data(), *last = first + ids.size();
    const std::int64_t vocab = static_cast<std::int64_t>(engine_->plan.vocab);
    const auto bad = std::find_if(first, last, [&](std::int64_t id) { return id < 0 || id >= vocab; });
    if (bad != last)
      throw std::invalid_argument("ids[" + std::to_string(bad - first) + "] is " + std::to_string(*bad) +
                                  "; it must be in 0 .. " + std::to_string(vocab - 1));
    return first;
  }

  std::optional<Stored> embedding_;  // which the engine goes on reading
  std::string tier_, dtype_;
  std::unique_ptr<Engine> engine_;
};

// -- facts ----------------------------------------------------------------------------------------

std::vector<std::string> tiers() {
  std::vector<std::string> names;
  for (Tier tier : built_tiers())
    if (why_unavailable(tier).empty()) names.push_back(tier_name(tier));
  return names;
}

py::dict missing_tiers() {
  py::dict why;
  for (Tier tier : built_tiers())
    if (const std::string reason = why_unavailable(tier); !reason.empty()) why[tier_name(tier)] = reason;
  return why;
}

std::vector<std::string> dtypes(const std::string& tier) {
  std::vector<std::string> names;
  for (const auto& [name, dtype] : kDtypes)
    if (kernels_of(named_tier(tier), dtype)) names.push_back(name);
  return names;
}

std::string compiler() {
#if defined(__clang__)
  return std::string("clang ") + __clang_version__;
#elif defined(__GNUC__)
  return std::string("gcc ") + __VERSION__;
#else
  return "unknown";
#endif
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  using py::arg;
  const py::none none;
  m.doc() = "The CPU engine of refimpl: kernels per tier, and the whole encoder on packed tokens.";
  m.attr("compiler") = compiler();
  m.def("tiers", &tiers, "Tiers that can run here, best first.");
  m.def("missing_tiers", &missing_tiers, "Tier of this build -> why it cannot run here.");
  m.def("best_tier", [](const std::string& cap) { return tier_name(best_tier(cap)); }, arg("cap") = "",
        "The best tier that can run here and is not above `cap`.");
  m.def("dtypes", &dtypes, arg("tier"), "The dtypes that a tier offers.");
  m.def("default_threads", &default_threads,
        "REFIMPL_THREADS, else OMP_NUM_THREADS, else the least of affinity, cgroup quota and cores.");

  m.def("linear", &op_linear, arg("tier"), arg("x"), arg("weight"), arg("bias") = none, arg("residual") = none,
        arg("row_split") = 84, arg("panel_split") = 1, arg("dtype") = "float32",
        "x [m, k] W^T + bias + residual, W [n, k]; done `row_split` rows, `panel_split` panels at a time.");
  m.def("linear_glu", &op_linear_glu, arg("tier"), arg("x"), arg("weight"), arg("activation"), arg("bias") = none,
        arg("row_split") = 84, arg("panel_split") = 1, arg("dtype") = "float32",
        "glu(x [m, k] W^T + bias) in one go, W [n, k] gate rows first -> [m, n / 2].");
  m.def("layer_norm", &op_layer_norm, arg("tier"), arg("x"), arg("weight"), arg("bias") = none, arg("eps") = 1e-5f,
        arg("dtype") = "float32",         "LayerNorm of each row of x [rows, n].");
  m.def("glu", &op_glu, arg("tier"), arg("u"), arg("activation"), arg("dtype") = "float32",
        "act(u[:, :inter]) * u[:, inter:], u [rows, 2 inter].");
  m.def("rope", &op_rope, arg("tier"), arg("x"), arg("cos"), arg("sin"), arg("dtype") = "float32",
        "x [seq, heads, head_dim] rotated by cos, sin [seq, head_dim / 2].");
  m.def("attention", &op_attention, arg("tier"), arg("q"), arg("k"), arg("v"), arg("window") = none,
        arg("visible") = none, arg("dtype") = "float32",
        "Softmax attention of one sequence; all [seq, heads, head_dim], visible [seq] or None.");

  py::class_<PyEngine>(m, "Engine", "The encoder with its weights packed for one tier.")
      .def(py::init<const py::dict&, const py::dict&, const std::string&, const std::string&,
                    const std::optional<py::function>&>(),
           arg("plan"), arg("params"), arg("tier"), arg("dtype") = "float32", arg("packed") = none)
      .def("trace", &PyEngine::trace, arg("ids"), arg("embeds"), arg("cu_seqlens"), arg("positions") = none,
           arg("visible") = none, arg("threads") = 1, arg("fused") = false, py::kw_only(), arg("tap"),
           "The same, with tap(step, layer or None, first_row, rows [rows, columns]) called at every step.")
      .def("forward", &PyEngine::forward, arg("ids"), arg("embeds"), arg("cu_seqlens"), arg("positions") = none,
           arg("visible") = none, arg("threads") = 1, "Last hidden state [total, hidden] of packed sequences.")
      .def("packed_bytes", &PyEngine::packed_bytes, "Bytes of the packed matrices.")
      .def("workspace_bytes", &PyEngine::workspace_bytes, arg("total"), arg("batch"), arg("threads") = 1,
           "Bytes that a forward pass allocates and frees, but for index arrays and rotary tables.")
      .def_property_readonly("tier", &PyEngine::tier)
      .def_property_readonly("dtype", &PyEngine::dtype);
}
