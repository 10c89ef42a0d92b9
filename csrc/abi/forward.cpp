// A forward pass: every argument checked, then the engine.
#include <algorithm>
#include <cstdint>

#include "abi/model.h"

namespace refimpl {
namespace {

constexpr std::int64_t kMaxTokens = std::int64_t{1} << 31;

// What the engine may allocate for so many tokens stays countable.
void check_total(const Plan& plan, std::int64_t total, std::int64_t sequences) {
  const std::size_t widest = std::max(3 * plan.hidden, 2 * plan.inter);
  if (total < 0 || sequences < 0)
    refuse(std::to_string(total) + " tokens in " + std::to_string(sequences) + " sequences: neither may be negative");
  if (total > kMaxTokens || sequences > kMaxTokens || static_cast<std::size_t>(total) > kMaxElements / widest)
    refuse(std::to_string(total) + " tokens in " + std::to_string(sequences) + " sequences are more than any memory");
}

void check_range(const char* name, const std::int64_t* values, std::size_t count, std::size_t end) {
  for (std::size_t i = 0; i < count; ++i)
    if (values[i] < 0 || static_cast<std::uint64_t>(values[i]) >= end)
      refuse(std::string(name) + "[" + std::to_string(i) + "] is " + std::to_string(values[i]) +
             "; it must be in 0 .. " + std::to_string(end - 1));
}

}  // namespace

std::size_t total_of(const Plan& plan, const modernbert_input& in) {
  if (in.sequences < 0) refuse("input->sequences is " + std::to_string(in.sequences) + "; it must be at least 0");
  check_total(plan, 0, in.sequences);
  const std::int64_t* cu = &not_null(in.cu_seqlens, "input->cu_seqlens");
  if (cu[0] != 0) refuse("input->cu_seqlens starts with " + std::to_string(cu[0]) + ", not with 0");
  for (std::int64_t s = 0; s < in.sequences; ++s)
    if (cu[s + 1] < cu[s])
      refuse("input->cu_seqlens falls from " + std::to_string(cu[s]) + " to " + std::to_string(cu[s + 1]) + " at " +
             std::to_string(s + 1));
  check_total(plan, cu[in.sequences], in.sequences);
  return static_cast<std::size_t>(cu[in.sequences]);
}

Batch batch_of(const Plan& plan, const modernbert_input& in) {
  const std::size_t total = total_of(plan, in);
  const std::int64_t* cu = in.cu_seqlens;
  if (!in.ids == !in.embeddings) refuse("exactly one of input->ids and input->embeddings is needed");
  if (in.ids) check_range("ids", in.ids, total, plan.vocab);
  const std::size_t types = plan.types;
  if (in.token_types && !types) refuse("input->token_types are given, but the model has no token types");
  if (in.token_types) check_range("token_types", in.token_types, total, types);

  if (in.positions)
    for (std::size_t i = 0; i < total; ++i)
      if (in.positions[i] < 0)
        refuse("positions[" + std::to_string(i) + "] is " + std::to_string(in.positions[i]) +
               "; it must not be negative");

  return {in.ids, in.embeddings, in.token_types, in.positions, in.visible, {cu, cu + in.sequences + 1}};
}

void check_out(const float* out, std::size_t out_count, const char* rows_name, std::size_t rows, std::size_t columns) {
  if (out_count != rows * columns)
    refuse("out_count is " + std::to_string(out_count) + "; " + std::to_string(rows) + " " + rows_name + " of " +
           std::to_string(columns) + " need " + std::to_string(rows * columns));
  if (rows) not_null(out, "out");
}

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
