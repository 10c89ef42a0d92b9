// The C interface of the device engine: every argument checked, then the engine.
#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "abi/given.h"
#include "abi/input.h"
#include "abi/status.h"
#include "cuda/engine.h"
#include "modernbert_cuda.h"

#ifndef REFIMPL_VERSION
#define REFIMPL_VERSION "unknown"
#endif

struct modernbert_cuda_model {
  const char* dtype;
  std::unique_ptr<refimpl::cuda::DeviceEngine> engine;
  std::unique_ptr<refimpl::cuda::DeviceHead> head, classifier;  // the second may be null
  std::size_t modules, labels;
};

namespace refimpl::cuda {
namespace {

using Make = std::unique_ptr<DeviceEngine> (*)(int, const Plan&, const Weights&, const OfLayer&, const OfLayer&);
struct DtypeHere {
  const char* name;
  Make make;
};
constexpr DtypeHere kDtypes[] = {{"float32", make_float32}, {"bf16x3", make_bf16x3}, {"bfloat16", make_bfloat16}};

const DtypeHere& dtype_of(const char* given) {
  const std::string name = given ? given : "float32";
  for (const DtypeHere& d : kDtypes)
    if (name == d.name) return d;
  refuse("options->dtype is '" + name + "'; supported: float32, bf16x3, bfloat16");
}

std::int64_t size(std::size_t n) { return static_cast<std::int64_t>(n); }

const modernbert_cuda_model& opened(const modernbert_cuda_model* model) { return not_null(model, "model"); }

std::function<bool()> stop_of(const modernbert_run* run) {
  if (!run || !sized(run, "run").interrupt) return nullptr;
  return [run] { return run->interrupt(run->user) != 0; };
}

void run(const modernbert_cuda_model& model, const Pass& pass) {
  if (!model.engine->run(pass)) throw Interrupted{};
}

// Memory that modernbert_cuda_allocate gave.
std::mutex allocated_mutex;
std::map<void*, DeviceMemory>& allocated() {
  static auto* const all = new std::map<void*, DeviceMemory>;  // outlives whatever ends later
  return *all;
}

}  // namespace

// In a namespace they do not take their visibility from the header.
#pragma GCC visibility push(default)
extern "C" {

const char* modernbert_cuda_last_error(void) { return modernbert_last_error(); }
const char* modernbert_cuda_version(void) { return REFIMPL_VERSION; }
const char* modernbert_cuda_architectures(void) { return architectures(); }

int modernbert_cuda_count(int* count) {
  return guarded([&] { not_null(count, "count") = devices(); });
}

int modernbert_cuda_device_facts(int device, modernbert_cuda_device* facts) {
  return guarded([&] {
    modernbert_cuda_device& f = sized(facts, "facts");
    const DeviceFacts found = facts_of(device);
    f.major = found.major, f.minor = found.minor, f.memory = found.memory, f.multiprocessors = found.multiprocessors;
    std::snprintf(f.name, sizeof f.name, "%s", found.name.c_str());
    f.missing[0] = '\0';
    try {
      check_runs(device);
    } catch (const NoDevice& error) {
      std::snprintf(f.missing, sizeof f.missing, "%s", error.what());
    }
  });
}

int modernbert_cuda_create(const modernbert_config* config, const modernbert_tensor* tensors, size_t count,
                           const modernbert_cuda_options* options, modernbert_cuda_model** model) {
  return guarded([&] {
    not_null(model, "model");
    modernbert_cuda_options o{};
    if (options) o = sized(options, "options");
    const DtypeHere& dtype = dtype_of(o.dtype);
    const Given given = model_given(sized(config, "config"), tensors, count);
    check_runs(o.device);
    const OfLayer reading = [&](std::size_t layer) {
      if (o.reading && o.reading(o.user, size(layer))) throw Interrupted();
    };
    const OfLayer packed = [&](std::size_t layer) {
      if (o.packed) o.packed(o.user, size(layer));
    };
    auto made = std::make_unique<modernbert_cuda_model>();
    made->dtype = dtype.name, made->modules = given.modules.size(), made->labels = 0;
    made->engine = dtype.make(o.device, plan_of(given.config), weights_of(given.config, given.embedding, given.tensors), reading, packed);
    static const Modules mean = {{ModulePlan::Kind::pooling, {Pooling::mean}}};
    made->head = std::make_unique<DeviceHead>(o.device, given.config.hidden, given.modules.empty() ? mean : given.modules);
    std::size_t widest = made->head->widest();
    if (!given.modules.empty() && given.modules.back().kind == ModulePlan::Kind::dense) made->labels = made->head->width();
    if (!given.classifier.empty()) {
      made->classifier = std::make_unique<DeviceHead>(o.device, given.config.hidden, given.classifier);
      widest = std::max(widest, made->classifier->widest()), made->labels = made->classifier->width();
    }
    made->engine->sizes.vector = widest, made->engine->sizes.graphs = !o.no_graphs;
    *model = made.release();
  });
}

void modernbert_cuda_close(modernbert_cuda_model* model) { delete model; }

int modernbert_cuda_model_facts(const modernbert_cuda_model* model, modernbert_cuda_facts* facts) {
  return guarded([&] {
    const Plan& plan = opened(model).engine->plan;
    modernbert_cuda_facts& f = sized(facts, "facts");
    f.vocab = size(plan.vocab), f.hidden = size(plan.hidden), f.inter = size(plan.inter), f.heads = size(plan.heads);
    f.layers = size(plan.layers.size()), f.types = size(plan.types);
    f.device = model->engine->device, f.dtype = model->dtype;
    f.weight_bytes = model->engine->weight_bytes() + model->head->bytes() + (model->classifier ? model->classifier->bytes() : 0);
    f.modules = size(model->modules), f.width = size(model->head->width()), f.labels = size(model->labels);
  });
}

int modernbert_cuda_workspace_bytes(const modernbert_cuda_model* model, int64_t total, int64_t sequences, uint64_t* bytes) {
  return guarded([&] {
    check_total(opened(model).engine->plan, total, sequences);
    not_null(bytes, "bytes") = model->engine->workspace_bytes(static_cast<std::size_t>(total), static_cast<std::size_t>(sequences));
  });
}

int modernbert_cuda_trim(const modernbert_cuda_model* model) {
  return guarded([&] { opened(model).engine->forget(); });
}

int modernbert_cuda_forward(const modernbert_cuda_model* model, const modernbert_input* input, const modernbert_run* how,
                            float* out, size_t out_count) {
  return guarded([&] {
    const Plan& plan = opened(model).engine->plan;
    check_out(out, out_count, "tokens", total_of(plan, sized(input, "input")), plan.hidden);
    const Batch batch = batch_of(plan, *input);
    Pass pass{batch};
    pass.stop = stop_of(how), pass.out = out;
    run(*model, pass);
  });
}

int modernbert_cuda_embed(const modernbert_cuda_model* model, const modernbert_input* input,
                          const modernbert_embedding* embedding, const modernbert_run* how, float* out, size_t out_count) {
  return guarded([&] {
    const Plan& plan = opened(model).engine->plan;
    modernbert_embedding wanted{};
    if (embedding) wanted = sized(embedding, "embedding");
    const std::size_t full = model->head->width();
    if (wanted.width < 0 || static_cast<std::uint64_t>(wanted.width) > full)
      refuse("embedding->width is " + std::to_string(wanted.width) + "; it must be in 1 .. " + std::to_string(full) +
             ", or 0 for the default");
    if (wanted.prompt_tokens < 0)
      refuse("embedding->prompt_tokens is " + std::to_string(wanted.prompt_tokens) + "; it must be at least 0");
    total_of(plan, sized(input, "input"));
    const std::size_t sequences = static_cast<std::size_t>(input->sequences), width = wanted.width ? static_cast<std::size_t>(wanted.width) : full;
    if (sequences > kMaxElements / full) refuse("vectors of so many sequences are larger than any memory");
    check_out(out, out_count, "sequences", sequences, width);
    const Batch batch = batch_of(plan, *input);
    Pass pass{batch};
    pass.stop = stop_of(how), pass.out = out, pass.head = model->head.get(), pass.width = width;
    pass.normalize = wanted.normalize != 0, pass.prompt_tokens = static_cast<std::size_t>(wanted.prompt_tokens);
    run(*model, pass);
  });
}

int modernbert_cuda_logits(const modernbert_cuda_model* model, const modernbert_input* input, const modernbert_run* how,
                           float* out, size_t out_count) {
  return guarded([&] {
    const Plan& plan = opened(model).engine->plan;
    if (!model->labels) refuse("the model has no head that gives logits of sequences");
    total_of(plan, sized(input, "input"));
    const std::size_t sequences = static_cast<std::size_t>(input->sequences);
    if (sequences > kMaxElements / model->labels) refuse("logits of so many sequences are larger than any memory");
    check_out(out, out_count, "sequences", sequences, model->labels);
    const Batch batch = batch_of(plan, *input);
    Pass pass{batch};
    pass.stop = stop_of(how), pass.out = out, pass.width = model->labels;
    pass.head = model->classifier ? model->classifier.get() : model->head.get();
    run(*model, pass);
  });
}

int modernbert_cuda_trace(const modernbert_cuda_model* model, const modernbert_input* input, int fused, modernbert_tap tap,
                          void* user, float* out, size_t out_count) {
  return guarded([&] {
    const Plan& plan = opened(model).engine->plan;
    check_out(out, out_count, "tokens", total_of(plan, sized(input, "input")), plan.hidden);
    const Batch batch = batch_of(plan, *input);
    if (!tap) refuse("tap is NULL");
    const Tap told = [&](const Tapped& t) {
      const std::string step = t.layer < 0 ? t.step : "layers." + std::to_string(t.layer) + "." + t.step;
      const modernbert_piece piece{sizeof piece,       step.c_str(), t.layer, size(t.first_row), size(t.rows),
                                   size(t.columns), t.data};
      if (tap(user, &piece)) throw Interrupted{};
    };
    Pass pass{batch};
    pass.tap = &told, pass.fused = fused != 0, pass.out = out;
    run(*model, pass);
  });
}

int modernbert_cuda_forward_there(const modernbert_cuda_model* model, const modernbert_input* input, uintptr_t stream, float* out,
                                  size_t out_count) {
  return guarded([&] {
    const DeviceEngine& engine = *opened(model).engine;
    check_out(out, out_count, "tokens", total_of(engine.plan, sized(input, "input")), engine.plan.hidden);
    // Values of arrays are on the device; what is asked of them otherwise is asked all the same.
    modernbert_input of_host = *input;
    if (!input->ids == !input->embeddings) refuse("exactly one of input->ids and input->embeddings is needed");
    if (input->token_types && !engine.plan.types) refuse("input->token_types are given, but the model has no token types");
    static const float nothing = 0;
    of_host.ids = nullptr, of_host.token_types = nullptr, of_host.embeddings = &nothing;
    Batch batch = batch_of(engine.plan, of_host);
    if (batch.cu_seqlens.back() == 0) return;
    const OnDevice here(engine.device);
    const auto check = [&](const void* p, const char* name) {
      if (p) check_pointer(p, engine.device, name);
    };
    check(input->ids, "input->ids"), check(input->embeddings, "input->embeddings"), check(input->token_types, "input->token_types");
    check(input->visible, "input->visible"), check(out, "out");
    batch.ids = input->ids, batch.embeddings = input->embeddings, batch.types = input->token_types, batch.visible = input->visible;
    Pass pass{batch};
    pass.on_device = pass.has_stream = true, pass.stream = stream_of(stream), pass.out = out;
    run(*model, pass);
  });
}

int modernbert_cuda_allocate(int device, size_t bytes, void** memory) {
  return guarded([&] {
    not_null(memory, "memory") = nullptr;
    facts_of(device);
    DeviceMemory made(device, std::max<std::size_t>(bytes, 1));
    void* const p = made.data();
    const std::lock_guard<std::mutex> lock(allocated_mutex);
    allocated().emplace(p, std::move(made));
    *memory = p;
  });
}

void modernbert_cuda_free(int, void* memory) {
  DeviceMemory gone;
  const std::lock_guard<std::mutex> lock(allocated_mutex);
  const auto found = allocated().find(memory);
  if (found == allocated().end()) return;
  gone = std::move(found->second);
  allocated().erase(found);
}

int modernbert_cuda_to_host(int device, void* to, const void* from, size_t bytes) {
  return guarded([&] {
    if (!bytes) return;
    facts_of(device);
    const OnDevice here(device);
    check_pointer(from, device, "from");
    const OwnStream stream(device);
    to_host(stream.get(), &not_null(static_cast<char*>(to), "to"), from, bytes);
    finish(stream.get());
  });
}

int modernbert_cuda_to_device(int device, void* to, const void* from, size_t bytes) {
  return guarded([&] {
    if (!bytes) return;
    facts_of(device);
    const OnDevice here(device);
    check_pointer(to, device, "to");
    const OwnStream stream(device);
    to_device(stream.get(), to, &not_null(static_cast<const char*>(from), "from"), bytes);
    finish(stream.get());
  });
}

int modernbert_cuda_wait(int device, uintptr_t stream, uintptr_t other) {
  return guarded([&] {
    facts_of(device);
    const OnDevice here(device);
    Event given(device);
    given.record(stream_of(other));
    given.stream_waits(stream_of(stream));
  });
}

int modernbert_cuda_finish(int device, uintptr_t stream) {
  return guarded([&] {
    facts_of(device);
    const OnDevice here(device);
    finish(stream_of(stream));
  });
}

}  // extern "C"
}  // namespace refimpl::cuda
