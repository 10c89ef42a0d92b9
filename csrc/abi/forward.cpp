// A forward pass: every argument checked, then the engine.
#include <algorithm>
#include <cstdint>

#include "abi/model.h"

namespace refimpl {
modernbert_run run_of(const modernbert_model& model, const modernbert_run* run) {
  modernbert_run how{};
  if (run) how = sized(run, "run");
  how.threads = threads_of(how.threads, model.threads);
  return how;
}

void forward(const modernbert_model& model, const Batch& batch, const modernbert_run& how, float* out) {
  std::function<bool()> stop;
  if (how.interrupt) stop = [&] { return how.interrupt(how.user) != 0; };
  if (!model.engine->forward(batch, out, how.threads, stop)) throw Interrupted{};
}

}  // namespace refimpl

using namespace refimpl;

extern "C" {

int modernbert_forward(const modernbert_model* model, const modernbert_input* input, const modernbert_run* run,
                       float* out, size_t out_count) {
  return guarded([&] {
    const modernbert_run how = run_of(not_null(model, "model"), run);
    check_out(out, out_count, "tokens", total_of(model->engine->plan, sized(input, "input")), model->engine->plan.hidden);
    const Batch batch = batch_of(model->engine->plan, *input);
    forward(*model, batch, how, out);
  });
}

int modernbert_trace(const modernbert_model* model, const modernbert_input* input, int threads, int fused,
                     modernbert_tap tap, void* user, float* out, size_t out_count) {
  return guarded([&] {
    const int wanted = threads_of(threads, not_null(model, "model").threads);
    check_out(out, out_count, "tokens", total_of(model->engine->plan, sized(input, "input")), model->engine->plan.hidden);
    const Batch batch = batch_of(model->engine->plan, *input);
    if (!tap) refuse("tap is NULL");
    model->engine->trace(batch, out, wanted, fused != 0, [&](const Tapped& t) {
      const std::string step = t.layer < 0 ? t.step : "layers." + std::to_string(t.layer) + "." + t.step;
      const auto size = [](std::size_t n) { return static_cast<std::int64_t>(n); };
      const modernbert_piece piece{sizeof piece,       step.c_str(), t.layer, size(t.first_row), size(t.rows),
                                   size(t.columns), t.data};
      if (tap(user, &piece)) throw Interrupted{};
    });
  });
}

int modernbert_workspace_bytes(const modernbert_model* model, int64_t total, int64_t sequences, int threads,
                               uint64_t* bytes) {
  return guarded([&] {
    const Engine& engine = *not_null(model, "model").engine;
    check_total(engine.plan, total, sequences);
    const int n = threads_of(threads, model->threads);
    not_null(bytes, "bytes") =
        engine.workspace_bytes(static_cast<std::size_t>(total), static_cast<std::size_t>(sequences), n);
  });
}

}  // extern "C"
