// Training in refimpl.backends._native: arrays checked, the GIL let go, the C interface called.
//
// What is changed in place (gradients, parameters, moments) must be float32, C-contiguous, aligned and
// writeable: it is never copied. What is only read is copied where it has to be.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <climits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings.h"
#include "modernbert_training.h"

namespace py = pybind11;

namespace {

constexpr int kPlain = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
using Float = py::array_t<float, kPlain>;
using Long = py::array_t<std::int64_t, kPlain>;
using Byte = py::array_t<std::uint8_t, kPlain>;
using Shape = std::vector<std::int64_t>;

template <class F>
void run(F f) {
  check(released(f));
}

std::string text_of(const Shape& shape) {
  std::string text;
  for (const std::int64_t n : shape) text += (text.empty() ? "" : ", ") + std::to_string(n);
  return "[" + text + "]";
}

Shape shape_of(const py::array& x) { return {x.shape(), x.shape() + x.ndim()}; }

void shaped(const std::string& name, const py::array& x, const Shape& wanted) {
  if (shape_of(x) != wanted)
    throw std::invalid_argument(name + " has shape " + text_of(shape_of(x)) + "; it must be " + text_of(wanted));
}

Shape rows_of(const std::string& name, const py::array& x, std::size_t ndim) {
  if (static_cast<std::size_t>(x.ndim()) != ndim)
    throw std::invalid_argument(name + " has shape " + text_of(shape_of(x)) + "; it must have " + std::to_string(ndim) +
                                " axes");
  return shape_of(x);
}

std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }

// An array whose memory itself is used.
const float* as_it_is(const std::string& name, const py::array& x, bool written) {
  const bool right = x.dtype().equal(py::dtype::of<float>()) && (x.flags() & py::array::c_style) &&
                     (x.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) && (!written || x.writeable());
  if (right) return static_cast<const float*>(x.data());
  throw std::invalid_argument(name + " must be a float32 array, C-contiguous, aligned" +
                              (written ? " and writeable" : "") + ": its memory is used as it is");
}
float* changed(const std::string& name, const py::array& x) { return const_cast<float*>(as_it_is(name, x, true)); }

float* changed(const std::string& name, const std::optional<py::array>& x, const Shape& shape) {
  if (!x) return nullptr;
  shaped(name, *x, shape);
  return changed(name, *x);
}

int threads_of(py::ssize_t threads) {
  if (threads < 1)
    throw std::invalid_argument("threads is " + std::to_string(threads) + "; it must be at least 1");
  return static_cast<int>(std::min<py::ssize_t>(threads, INT_MAX));
}

struct Close {
  void operator()(modernbert_training* training) const { modernbert_training_close(training); }
};

class PyTraining {
 public:
  PyTraining(const py::dict& plan, const py::dict& weights, const py::dict& gradients, const std::string& tier,
             const std::string& dtype)
      : weights_(weights), gradients_(gradients) {
    const auto integer = [&](const char* name) { return plan[name].cast<std::int64_t>(); };
    std::vector<std::int64_t> windows;
    for (const auto& window : plan["windows"].cast<std::vector<std::optional<std::int64_t>>>())
      windows.push_back(window.value_or(-1));
    const auto thetas = plan["thetas"].cast<std::vector<double>>();
    if (windows.size() != thetas.size()) throw std::invalid_argument("windows and thetas differ in length");
    const std::string activation = plan["activation"].cast<std::string>();
    modernbert_config config{};
    config.struct_size = sizeof config;
    config.vocab = integer("vocab"), config.hidden = integer("hidden"), config.inter = integer("inter");
    config.heads = integer("heads"), config.types = integer("types");
    config.layers = static_cast<std::int64_t>(windows.size());
    config.windows = windows.data(), config.thetas = thetas.data();
    config.norm_eps = plan["norm_eps"].cast<double>(), config.activation = activation.c_str();
    std::vector<std::string> names;
    std::vector<Shape> shapes;
    for (const auto& [key, value] : weights) {
      names.push_back(py::cast<std::string>(key));
      shapes.push_back(shape_of(py::cast<py::array>(value)));
    }
    for (const auto& [key, value] : gradients)
      if (!weights.contains(key))
        throw std::invalid_argument("gradients['" + py::cast<std::string>(key) + "'] has no weight");
    std::vector<modernbert_parameter> parameters;
    std::size_t i = 0;
    for (const auto& [key, value] : weights) {
      modernbert_parameter p{names[i].c_str(), as_it_is("weights['" + names[i] + "']", py::cast<py::array>(value), false),
                             nullptr, static_cast<int>(shapes[i].size()), shapes[i].data()};
      if (gradients.contains(key)) {
        const py::array gradient = py::cast<py::array>(gradients[key]);
        shaped("gradients['" + names[i] + "']", gradient, shapes[i]);
        p.gradient = changed("gradients['" + names[i] + "']", gradient);
      }
      parameters.push_back(p), ++i;
    }
    hidden_ = config.hidden;
    modernbert_training* made = nullptr;
    check(modernbert_training_create(&config, parameters.data(), parameters.size(), tier.c_str(), dtype.c_str(), &made));
    training_.reset(made);
  }

  Float forward(const Long& ids, const Long& cu_seqlens, const std::optional<Long>& token_types,
                const std::optional<Long>& positions, const std::optional<Byte>& visible, std::size_t recomputed,
                py::ssize_t threads) {
    modernbert_input input{};
    input.struct_size = sizeof input;
    if (rows_of("cu_seqlens", cu_seqlens, 1)[0] == 0) throw std::invalid_argument("cu_seqlens is empty");
    input.sequences = cu_seqlens.shape(0) - 1;
    input.cu_seqlens = cu_seqlens.data();
    const Shape total{input.cu_seqlens[input.sequences]};
    shaped("ids", ids, total), input.ids = ids.data();
    if (token_types) shaped("token_types", *token_types, total), input.token_types = token_types->data();
    if (positions) shaped("positions", *positions, total), input.positions = positions->data();
    if (visible) shaped("visible", *visible, total), input.visible = visible->data();
    Float out({total[0], hidden_});
    float* y = out.mutable_data();
    const modernbert_run how = run_of(threads);
    run([&] {
      return modernbert_training_forward(training_.get(), &input, recomputed, &how, y, size(total[0] * hidden_));
    });
    return out;
  }

  void backward(std::int64_t part, const std::optional<Float>& d, py::ssize_t threads) {
    const modernbert_run how = run_of(threads);
    const std::size_t count = d ? size(d->size()) : 0;
    const float* from = d ? d->data() : nullptr;
    run([&] { return modernbert_training_backward(training_.get(), part, from, count, &how); });
  }

  void finish(py::ssize_t threads) {
    const int n = threads_of(threads);
    run([&] { return modernbert_training_finish(training_.get(), n); });
  }

  std::string tier() const { return modernbert_training_tier(training_.get()); }

 private:
  static modernbert_run run_of(py::ssize_t threads) {
    return {sizeof(modernbert_run), threads_of(threads), nullptr, nullptr};
  }

  py::dict weights_, gradients_;  // whose memory is used
  std::int64_t hidden_ = 0;
  std::unique_ptr<modernbert_training, Close> training_;
};

// -- rows -----------------------------------------------------------------------------------------

Float rows_linear(const std::string& tier, const std::string& dtype, const Float& x, const Float& weight,
                  const std::optional<Float>& bias, py::ssize_t threads) {
  const Shape in = rows_of("x", x, 2), w = rows_of("weight", weight, 2);
  shaped("weight", weight, {w[0], in[1]});
  if (bias) shaped("bias", *bias, {w[0]});
  Float y({in[0], w[0]});
  float* out = y.mutable_data();
  const int n = threads_of(threads);
  run([&] {
    return modernbert_rows_linear(tier.c_str(), dtype.c_str(), n, size(in[0]), size(w[0]), size(in[1]), x.data(),
                                  weight.data(), bias ? bias->data() : nullptr, out);
  });
  return y;
}

Float rows_linear_adjoint(const std::string& tier, const std::string& dtype, const Long& ends, const Float& dy,
                          const Float& x, const Float& weight, const std::optional<py::array>& dw,
                          const std::optional<py::array>& db, py::ssize_t threads) {
  const Shape in = rows_of("x", x, 2), w = rows_of("weight", weight, 2), e = rows_of("ends", ends, 1);
  shaped("weight", weight, {w[0], in[1]}), shaped("dy", dy, {in[0], w[0]});
  float *to_w = changed("dw", dw, w), *to_b = changed("db", db, {w[0]});
  Float dx(in);
  float* out = dx.mutable_data();
  const int n = threads_of(threads);
  run([&] {
    return modernbert_rows_linear_adjoint(tier.c_str(), dtype.c_str(), n, ends.data(), size(e[0]), size(in[0]),
                                          size(w[0]), size(in[1]), dy.data(), x.data(), weight.data(), out, to_w, to_b);
  });
  return dx;
}

py::tuple rows_cross_entropy(const std::string& tier, const std::string& dtype, const Long& ends, const Float& x,
                             const Float& weight, const std::optional<Float>& bias, const Long& labels, float smoothing,
                             float share, const std::optional<py::array>& dw, const std::optional<py::array>& db,
                             py::ssize_t threads) {
  const Shape in = rows_of("x", x, 2), w = rows_of("weight", weight, 2), e = rows_of("ends", ends, 1);
  shaped("weight", weight, {w[0], in[1]}), shaped("labels", labels, {in[0]});
  if (bias) shaped("bias", *bias, {w[0]});
  float *to_w = changed("dw", dw, w), *to_b = changed("db", db, {w[0]});
  Float dx(in);
  float* out = dx.mutable_data();
  const int n = threads_of(threads);
  py::array_t<double> losses(in[0]);
  double* of_rows = losses.mutable_data();
  run([&] {
    return modernbert_rows_cross_entropy(tier.c_str(), dtype.c_str(), n, ends.data(), size(e[0]), size(in[0]),
                                         size(w[0]), size(in[1]), x.data(), weight.data(),
                                         bias ? bias->data() : nullptr, labels.data(), smoothing, share, of_rows, out,
                                         to_w, to_b);
  });
  return py::make_tuple(losses, dx);
}

Float rows_layer_norm_adjoint(const std::string& tier, const Long& ends, const Float& dy, const Float& x,
                              const Float& weight, float eps, const py::array& dw,
                              const std::optional<py::array>& db) {
  const Shape in = rows_of("x", x, 2), e = rows_of("ends", ends, 1);
  shaped("dy", dy, in), shaped("weight", weight, {in[1]});
  float *to_w = changed("dw", dw, {in[1]}), *to_b = changed("db", db, {in[1]});
  Float dx(in);
  float* out = dx.mutable_data();
  run([&] {
    return modernbert_rows_layer_norm_adjoint(tier.c_str(), ends.data(), size(e[0]), size(in[0]), size(in[1]),
                                              dy.data(), x.data(), weight.data(), eps, out, to_w, to_b);
  });
  return dx;
}

Float rows_glu_adjoint(const std::string& tier, const Float& dy, const Float& u, const std::string& activation) {
  const Shape in = rows_of("dy", dy, 2);
  shaped("u", u, {in[0], 2 * in[1]});
  Float du({in[0], 2 * in[1]});
  float* out = du.mutable_data();
  run([&] {
    return modernbert_rows_glu_adjoint(tier.c_str(), activation.c_str(), size(in[0]), size(in[1]), dy.data(), u.data(),
                                       out);
  });
  return du;
}

py::tuple rows_attention_adjoint(const std::string& tier, const std::string& dtype, const Float& dy, const Float& q,
                                 const Float& k, const Float& v, const std::optional<py::ssize_t>& window,
                                 const std::optional<Byte>& visible) {
  const Shape in = rows_of("q", q, 3);
  shaped("dy", dy, in), shaped("k", k, in), shaped("v", v, in);
  if (visible) shaped("visible", *visible, {in[0]});
  if (window && *window < 0)
    throw std::invalid_argument("window is " + std::to_string(*window) + "; it must be None or at least 0");
  Float dq(in), dk(in), dv(in);
  float *to_q = dq.mutable_data(), *to_k = dk.mutable_data(), *to_v = dv.mutable_data();
  run([&] {
    return modernbert_rows_attention_adjoint(tier.c_str(), dtype.c_str(), size(in[0]), size(in[1]), size(in[2]),
                                             window.value_or(-1), dy.data(), q.data(), k.data(), v.data(),
                                             visible ? visible->data() : nullptr, to_q, to_k, to_v);
  });
  return py::make_tuple(dq, dk, dv);
}

// -- updates --------------------------------------------------------------------------------------

void update(const std::string& tier, const py::array& p, const py::array& g, const py::array& m, const py::array& v,
            const py::dict& rule, py::ssize_t threads) {
  const Shape shape = shape_of(p);
  shaped("g", g, shape), shaped("m", m, shape), shaped("v", v, shape);
  float *to_p = changed("p", p), *to_m = changed("m", m), *to_v = changed("v", v);
  const float* from = as_it_is("g", g, false);
  const auto number = [&](const char* name) { return rule[name].cast<double>(); };
  const bool stable = rule.contains("peak");
  const modernbert_update u{sizeof u,        number("lr"),    number("weight_decay"),          number("eps"),
                            number("beta1"), number("beta2"), stable ? number("peak") : 0.0, rule["step"].cast<std::int64_t>()};
  const int n = threads_of(threads);
  const std::size_t count = size(p.size());
  run([&] {
    return (stable ? modernbert_stable_adamw : modernbert_adamw)(tier.c_str(), n, &u, count, to_p, from, to_m, to_v);
  });
}

bool all_finite(const py::array& x, py::ssize_t threads) {
  const float* numbers = as_it_is("x", x, false);
  const int n = threads_of(threads);
  const std::size_t count = size(x.size());
  int finite = 0;
  run([&] { return modernbert_all_finite(n, count, numbers, &finite); });
  return finite;
}

void clear(const py::array& x, py::ssize_t threads) {
  float* numbers = changed("x", x);
  const int n = threads_of(threads);
  const std::size_t count = size(x.size());
  run([&] { return modernbert_clear(n, count, numbers); });
}

}  // namespace

void bind_training(py::module_& m) {
  using py::arg;
  const py::none none;
  m.def("rows_linear", &rows_linear, arg("tier"), arg("dtype"), arg("x"), arg("weight"), arg("bias") = none,
        arg("threads") = 1, "x [m, k] W^T + bias, W [n, k] float32.");
  m.def("rows_linear_adjoint", &rows_linear_adjoint, arg("tier"), arg("dtype"), arg("ends"), arg("dy"), arg("x"),
        arg("weight"), arg("dw") = none, arg("db") = none, arg("threads") = 1,
        "dx = dy W; dw += dy^T x and db += dy in place, by sequences that end before the rows `ends`.");
  m.def("rows_cross_entropy", &rows_cross_entropy, arg("tier"), arg("dtype"), arg("ends"), arg("x"), arg("weight"),
        arg("bias"), arg("labels"), arg("smoothing"), arg("share"), arg("dw") = none, arg("db") = none,
        arg("threads") = 1, "(cross-entropies [m] of x W^T + bias, dx); gradients are of share times their sum.");
  m.def("rows_layer_norm_adjoint", &rows_layer_norm_adjoint, arg("tier"), arg("ends"), arg("dy"), arg("x"),
        arg("weight"), arg("eps"), arg("dw"), arg("db") = none, "dx of LayerNorm; dw += and db += in place.");
  m.def("rows_glu_adjoint", &rows_glu_adjoint, arg("tier"), arg("dy"), arg("u"), arg("activation"),
        "du [rows, 2 inter] of act(u[:, :inter]) u[:, inter:].");
  m.def("rows_attention_adjoint", &rows_attention_adjoint, arg("tier"), arg("dtype"), arg("dy"), arg("q"), arg("k"),
        arg("v"), arg("window") = none, arg("visible") = none, "dq, dk, dv of one sequence; all [seq, heads, head_dim].");
  m.def("update", &update, arg("tier"), arg("p"), arg("g"), arg("m"), arg("v"), arg("rule"), arg("threads") = 1,
        "AdamW on one tensor in place, StableAdamW where the rule has a peak.");
  m.def("all_finite", &all_finite, arg("x"), arg("threads") = 1, "Whether no number of x is Inf or NaN.");
  m.def("clear", &clear, arg("x"), arg("threads") = 1, "x = 0 in place.");
  py::class_<PyTraining>(m, "Training", "Passes of the encoder there and back, from float32 weights in place.")
      .def(py::init<const py::dict&, const py::dict&, const py::dict&, const std::string&, const std::string&>(),
           arg("plan"), arg("weights"), arg("gradients"), arg("tier"), arg("dtype") = "float32")
      .def("forward", &PyTraining::forward, arg("ids"), arg("cu_seqlens"), arg("token_types") = none,
           arg("positions") = none, arg("visible") = none, arg("recomputed") = 0, arg("threads") = 1,
           "Last hidden state [total, hidden]; what the way back needs is kept, but of the first `recomputed` layers.")
      .def("backward", &PyTraining::backward, arg("part"), arg("d") = none, arg("threads") = 1,
           "A part of the way back: layers (with d), each layer from the last on, -1; adds to the gradients.")
      .def("finish", &PyTraining::finish, arg("threads") = 1, "Adds the rows of the embeddings of all passes since the last call.")
      .def_property_readonly("tier", &PyTraining::tier);
}
