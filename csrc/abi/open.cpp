// A model from a folder or from memory.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <optional>
#include <system_error>
#include <utility>

#include "abi/model.h"
#include "base/digest.h"
#include "base/pool.h"
#include "files/folder.h"
#include "files/int8.h"
#include "kernels/activations.h"
#include "modernbert_text.h"

namespace refimpl {

int threads_of(int given, int otherwise) {
  if (given < 0) refuse("threads is " + std::to_string(given) + "; it must be at least 1, or 0 for the default");
  return std::min(given ? given : otherwise, kMaxThreads);
}

namespace {

constexpr std::int64_t kMaxSize = std::int64_t{1} << 31;
constexpr std::int64_t kMaxLayers = 1000;
// As good as no window, and far from overflow.
constexpr std::int64_t kMaxWindow = std::int64_t{1} << 40;
using Tensors = std::map<std::string, Tensor>;

std::string shown(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

// Tensors of a checkpoint, all but the embedding, where the engine looks for them; a bias may be missing.
Weights weights_of(const Config& config, const RowSource& embedding, const Tensors& tensors) {
  const auto get = [&](const std::string& name) {
    const auto found = tensors.find(name);
    return found == tensors.end() ? Tensor{} : found->second;
  };
  Weights w{embedding,
            get("embeddings.norm.weight"),
            get("embeddings.norm.bias"),
            get("embeddings.token_type_embeddings.weight"),
            get("final_norm.weight"),
            get("final_norm.bias"),
            {}};
  for (std::size_t i = 0; i < config.layers.size(); ++i) {
    const std::string at = "layers." + std::to_string(i) + ".";
    w.layers.push_back({get(at + "attn_norm.weight"), get(at + "attn_norm.bias"), get(at + "attn.Wqkv.weight"),
                        get(at + "attn.Wqkv.bias"), get(at + "attn.Wo.weight"), get(at + "attn.Wo.bias"),
                        get(at + "mlp_norm.weight"), get(at + "mlp_norm.bias"), get(at + "mlp.Wi.weight"),
                        get(at + "mlp.Wi.bias"), get(at + "mlp.Wo.weight"), get(at + "mlp.Wo.bias")});
  }
  return w;
}

using OfLayer = std::function<void(std::size_t layer)>;

// Everything but the handle: `tensors` are right, `fetch` brings a layer's source, `release` lets go of it.
void pack(modernbert_model& model, const Config& config, const RowSource& embedding, const Tensors& tensors,
          const modernbert_options& options, const OfLayer& fetch, const OfLayer& release,
          std::shared_ptr<const PackFile> file = nullptr) {
  model.threads = threads_of(options.threads, default_threads());
  const auto reading = [&](std::size_t layer) {
    fetch(layer);
    if (options.reading && options.reading(options.user, static_cast<std::int64_t>(layer))) throw Interrupted();
  };
  const auto packed = [&](std::size_t layer) {
    release(layer);
    if (options.packed) options.packed(options.user, static_cast<std::int64_t>(layer));
  };
  model.engine = std::make_unique<Engine>(*model.choice.kernels, plan_of(config),
                                          weights_of(config, embedding, tensors), model.threads, reading, packed,
                                          std::move(file));
}

// The caller's, checked and with defaults filled in.
modernbert_options options_of(const modernbert_options* given) {
  modernbert_options options{};
  if (given) options = sized(given, "options");
  threads_of(options.threads, 1);
  if (options.pack < MODERNBERT_PACK_TAKEN || options.pack > MODERNBERT_PACK_NEEDED)
    refuse("options->pack is " + std::to_string(options.pack) + "; it must be a modernbert_pack_use");
  return options;
}

Storage storage_of(const std::string& dtype) {
  return dtype == "BF16" ? Storage::bfloat16 : dtype == "F16" ? Storage::float16 : Storage::float32;
}

// -- from memory ----------------------------------------------------------------------------------

std::uint64_t size_of(const char* name, std::int64_t value, std::int64_t least, std::int64_t most) {
  if (value < least || value > most)
    refuse(std::string("config->") + name + " is " + std::to_string(value) + "; it must be in " +
           std::to_string(least) + " .. " + std::to_string(most));
  return static_cast<std::uint64_t>(value);
}

double positive(const std::string& name, double value) {
  if (std::isfinite(value) && value > 0.0) return value;
  refuse("config->" + name + " is " + shown(value) + "; it must be positive and finite");
}

unsigned kept_of(const modernbert_config& given, std::size_t layer) {
  const unsigned kept = given.kept ? given.kept[layer] : 0;
  const std::string it = "config->kept[" + std::to_string(layer) + "] is " + std::to_string(kept);
  if (kept > 255) refuse(it + "; it must be in 0 .. 255");
  if (kept & kept >> 4) refuse(it + ": a matrix is kept in bfloat16 or in float32, not in both");
  return kept;
}

struct GivenClassifier {
  std::size_t labels;  // 0: there is none
  bool mean;
  Activation activation;
};

// The caller's classifier, and the shapes of its tensors.
GivenClassifier classifier_given(const modernbert_config& given, std::map<std::string, Shape>& shapes) {
  constexpr std::int64_t kMaxLabels = 10'000'000;
  GivenClassifier out{size_of("labels", given.labels, 0, kMaxLabels), false, Activation::gelu};
  if (!out.labels) return out;
  const std::string pooling = given.classifier_pooling ? given.classifier_pooling : "cls";
  if (pooling != "cls" && pooling != "mean")
    refuse("config->classifier_pooling is '" + pooling + "'; supported: cls, mean");
  out.mean = pooling == "mean";
  if (given.classifier_activation && !named_activation(given.classifier_activation, out.activation))
    refuse(std::string("config->classifier_activation is '") + given.classifier_activation + "'; supported: " +
           activation_names());
  const auto hidden = static_cast<std::uint64_t>(given.hidden);
  shapes["head.dense.weight"] = {hidden, hidden}, shapes["classifier.weight"] = {out.labels, hidden};
  shapes["head.dense.bias"] = shapes["head.norm.weight"] = shapes["head.norm.bias"] = {hidden};
  shapes["classifier.bias"] = {out.labels};
  return out;
}

// What a tensor has instead of `wanted`; its shape is read where it has as many axes.
std::string given_shape(const modernbert_tensor& t, const Shape& wanted) {
  if (t.rank < 0 || static_cast<std::size_t>(t.rank) != wanted.size()) return "its rank is " + std::to_string(t.rank);
  if (!t.shape) return "its shape is NULL";
  std::string text;
  for (int i = 0; i < t.rank; ++i) text += (i ? ", " : "") + std::to_string(t.shape[i]);
  return "[" + text + "]";
}

// Rows of a tensor in the caller's file, whose descriptor may be closed then. Unreadable: the system's
// fault, or the file's.
RowSource rows_in(const modernbert_file& given, const std::string& shown, const Shape& shape, Storage storage) {
  const std::string place = shown + " is to stand in descriptor " + std::to_string(given.descriptor) + " from byte " +
                            std::to_string(given.offset) + " on: ";
  if (given.offset < 0) refuse(place + "that must be at least 0");
  auto file = std::make_shared<OpenFile>();
  struct stat facts;
  if (const int error = file->take(fcntl(given.descriptor, F_DUPFD_CLOEXEC, 0), facts)) {
    if (error == EBADF) refuse(place + "that is not open");
    throw Unreadable(place + std::generic_category().message(error));
  }
  char byte;
  if (!S_ISREG(facts.st_mode) || pread(file->descriptor(), &byte, 1, 0) < 0)
    refuse(place + "that is no file, or not open for reading");
  const std::uint64_t bytes = shape[0] * shape[1] * size_of(storage);
  if (given.offset > facts.st_size || static_cast<std::uint64_t>(facts.st_size - given.offset) < bytes)
    throw Unreadable(place + "its " + std::to_string(bytes) + " bytes do not fit into the file's " +
                     std::to_string(facts.st_size));
  return {std::move(file), static_cast<std::uint64_t>(given.offset), storage, shape[1]};
}

// The caller's tensors by name: each of the model's, of its shape, once; the embedding apart.
Tensors tensors_of(const Config& config, const std::map<std::string, Shape>& shapes, const modernbert_tensor* given,
                   std::size_t count, RowSource& embedding) {
  Tensors out;
  if (count) not_null(given, "tensors");
  for (std::size_t i = 0; i < count; ++i) {
    const modernbert_tensor& t = given[i];
    const std::string name = &not_null(t.name, "a tensor's name"), shown = "tensor '" + FormatError::shown(name) + "'";
    const auto shape = shapes.find(name);
    if (shape == shapes.end()) refuse(shown + " belongs to no part of the model");
    if (t.rank < 0 || static_cast<std::size_t>(t.rank) != shape->second.size() || !t.shape ||
        !std::equal(shape->second.begin(), shape->second.end(), t.shape,
                    [](std::uint64_t n, std::int64_t m) { return m >= 0 && n == static_cast<std::uint64_t>(m); }))
      refuse(shown + " has another shape than " + shape_text(shape->second) + ": " + given_shape(t, shape->second));
    const bool half = t.storage == MODERNBERT_BFLOAT16 || t.storage == MODERNBERT_FLOAT16;
    if (!half && t.storage != MODERNBERT_FLOAT32)
      refuse(shown + " has the storage " + std::to_string(static_cast<int>(t.storage)) +
             "; it must be a modernbert_storage");
    if (!t.data == !t.file) refuse(shown + (t.data ? " has both data and a file" : " has no data"));
    if (t.file && name != kEmbedding) refuse(shown + " has a file; the token embedding alone is read from one");
    if (reinterpret_cast<std::uintptr_t>(t.data) % (half ? 2 : 4)) refuse(shown + " is not aligned as its elements");
    const Storage storage = t.storage == MODERNBERT_BFLOAT16  ? Storage::bfloat16
                            : t.storage == MODERNBERT_FLOAT16 ? Storage::float16
                                                              : Storage::float32;
    if (!out.emplace(name, Tensor{t.data, storage}).second) refuse(shown + " is given twice");
    if (name == kEmbedding)
      embedding = t.file ? rows_in(*t.file, shown, shape->second, storage) : RowSource({t.data, storage}, config.hidden);
  }
  for (const auto& [name, shape] : shapes)
    if (name.compare(name.size() - 5, 5, ".bias") != 0 && !out.count(name)) refuse("tensor '" + name + "' is missing");
  return out;
}

// -- from a folder --------------------------------------------------------------------------------

struct Read {
  SentenceFolder sentence;
  ModelFolder encoder;
  std::string head;  // in words
  std::unique_ptr<TextSide> text;
  std::shared_ptr<const PackFile> pack;
  Certificate certificate;
};

PackKey key_of(const Choice& choice, const Config& c) {
  const std::size_t sizes[] = {c.hidden, c.inter, c.heads, c.layers.size()};
  std::string model;
  for (const std::size_t size : sizes) model += (model.empty() ? "" : " ") + std::to_string(size);
  if (std::any_of(c.layers.begin(), c.layers.end(), [](const LayerConfig& layer) { return layer.kept; })) {
    model += " kept";
    for (const LayerConfig& layer : c.layers) model += " " + std::to_string(layer.kept);
  }
  return {std::to_string(kPackLayout), choice.tier, choice.dtype, model};
}

// Where the pack of a model in `root` is.
std::string pack_path(const Choice& choice, const modernbert_options& o, const std::string& root) {
  const std::string what = std::string(choice.tier) + "-" + choice.dtype + ".pack";
  if (!o.pack_folder) return join(root, "modernbert-" + what);
  const std::unique_ptr<char, void (*)(void*)> whole(realpath(root.c_str(), nullptr), std::free);
  const std::string path = whole ? whole.get() : root;
  Digest digest;
  digest.add(path.data(), path.size());
  return join(o.pack_folder, "modernbert-" + digest.text() + "-" + what);
}

std::shared_ptr<const PackFile> fresh_pack(const Choice& choice, const modernbert_options& o, const std::string& root,
                                           const Config& config, const SourceFiles& sources) {
  std::string why_not;
  const std::string path = pack_path(choice, o, root);
  auto found = PackFile::open(path, key_of(choice, config), sources,
                              Engine::matrices(*choice.kernels, plan_of(config)), why_not);
  if (!found && o.pack == MODERNBERT_PACK_NEEDED) throw FormatError(path, "is no fresh pack: " + why_not);
  return found;
}

// From logits to scores, as the folder names it in any of its spellings.
void find_score(TextSide& text, const Json& config, const std::string& folder) {
  const auto member = [](const Json* from, const char* key) {
    const Json* value = from ? from->find(key) : nullptr;
    return value && !value->is_null() ? value : nullptr;
  };
  const Json own{text.settings.activation_fn.value_or("")};
  const Json* name = text.settings.activation_fn ? &own : nullptr;
  if (!name) name = member(member(&config, "sentence_transformers"), "activation_fn");
  if (!name) name = member(&config, "sbert_ce_default_activation_function");
  if (!name) {
    text.score = Activation::sigmoid;  // of one label; of several none
  } else if (const std::string* path = name->get<std::string>(); !path || !torch_activation(*path, text.score)) {
    text.score_fault = FormatError(folder, "activation_fn", kNoOffset,
                                   "activation " + name->shown() + " is none of " + torch_activations()).what();
  }
  text.score_named = name != nullptr;
}

// What the folder says of texts.
std::unique_ptr<TextSide> text_of(FolderFiles& files, const SentenceFolder& sentence, const std::string& folder) {
  auto text = std::make_unique<TextSide>();
  text->settings = sentence.modules.empty() && !sentence.file.empty() ? read_settings(files, folder, sentence.root)
                                                                      : sentence.settings;
  if (text->settings.do_lower_case)
    throw FormatError(join(sentence.root, "sentence_bert_config.json"), "do_lower_case", kNoOffset,
                      "is true; the `tokenizers` package alone lowers texts");
  find_score(*text, files.json(join(sentence.root, "config.json"), true), folder);
  text->tokenizer = read_folder_tokenizer(files, sentence.root);
  return text;
}

// A folder all of whose files were read between two saves into it: one that falls between two of them is seen,
// and all is read anew. As read_checkpoint of refimpl/files/checkpoint.py.
Read read_in_one_state(const std::string& path, bool with_text, const Choice& choice, const modernbert_options& o) {
  constexpr int kTries = 10;
  const timespec pause{0, 20'000'000};
  for (int left = kTries - 1;; --left) {
    FolderFiles files;
    std::string root = path;
    try {
      SentenceFolder sentence = read_sentence(files, path);
      root = sentence.root;
      const bool named = sentence.modules.empty();  // the head, by config.json
      const bool int8 = choice.kernels->to_integers != nullptr;
      std::shared_ptr<const PackFile> pack;
      const Vouched vouched = [&](Config config, const SourceFiles& sources) {
        if (int8) read_kept(files, root, config);
        if (o.pack != MODERNBERT_PACK_LEFT) pack = fresh_pack(choice, o, root, config, sources);
        return pack != nullptr;
      };
      ModelFolder found = read_folder(files, root, named, vouched);
      Certificate certificate = Certificate::none;
      if (int8) read_kept(files, root, found.config), certificate = certificate_of(files, root, found);
      read_module_weights(files, sentence, found.config.hidden);
      const std::string head =
          named ? head_in_words(files.json(join(root, "config.json"), true)) : "a sentence_embedding head";
      std::unique_ptr<TextSide> text = with_text ? text_of(files, sentence, path) : nullptr;
      if (const std::string file = files.replaced(); !file.empty())
        throw FormatError(file, "was replaced while the folder was read");
      return {std::move(sentence), std::move(found), head, std::move(text), std::move(pack), certificate};
    } catch (const FormatError&) {
      const bool taken_away = !is_file(join(root, "config.json")) && !names_in(root, ".config.json.", ".old").empty();
      if (!left || (files.replaced().empty() && !taken_away)) throw;
    }
    nanosleep(&pause, nullptr);
  }
}

// The pack of a model that was made of what was read.
void write(const modernbert_model& model, const modernbert_options& o, const Read& read) {
  const std::string path = pack_path(model.choice, o, read.sentence.root);
  const SourceFiles& sources = read.encoder.files;
  write_pack(path, key_of(model.choice, read.encoder.config), sources, model.engine->matrices(), [&] {
    return fresh_pack(model.choice, o, read.sentence.root, read.encoder.config, sources) != nullptr;
  });
}

// The model of a folder. must_write: a pack that cannot be written is an error.
std::unique_ptr<modernbert_model> opened(const char* folder, const modernbert_options* options, bool with_text,
                                         bool must_write = false) {
  std::string path = &not_null(folder, "folder");
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const modernbert_options o = options_of(options);
  auto made = std::make_unique<modernbert_model>();
  made->choice = best_choice(o.tier_cap, o.dtype);
  Read read = read_in_one_state(path, with_text, made->choice, o);
  SentenceFolder& sentence = read.sentence;
  ModelFolder& found = read.encoder;
  Tensors tensors;
  for (const auto& [name, param] : found.params)
    tensors[name] = {param.data(), param.copy.empty() ? storage_of(param.tensor.dtype) : Storage::float32};
  Param& rows = found.params.at(kEmbedding);
  RowSource embedding;
  if (rows.tensor.dtype != "F64") {  // at any offset: rows need not be aligned
    embedding = {rows.tensor.file->file(), rows.tensor.offset, storage_of(rows.tensor.dtype), found.config.hidden};
  } else {
    made->embedding = std::move(rows.copy);
    embedding = {Tensor{made->embedding.data(), Storage::float32}, found.config.hidden};
  }
  // What was packed is not needed in memory again.
  const auto each_of = [&](std::size_t layer, const std::function<void(const std::string&, Param&)>& f) {
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    auto& params = found.params;
    for (auto p = params.lower_bound(prefix); p != params.end() && p->first.rfind(prefix, 0) == 0; ++p)
      f(p->first, p->second);
  };
  const auto fetch = [&](const std::string& name, Param& param) {
    if (param.copy.empty() && !(read.pack && is_packed(name))) param.tensor.fetch();
  };
  const auto release = [](const std::string&, Param& param) {
    param.tensor.release();
    std::vector<float>().swap(param.copy);
  };
  for (auto& [name, param] : found.params)
    if (name != kEmbedding && name.rfind("layers.", 0) != 0) fetch(name, param);
  pack(*made, found.config, embedding, tensors, o, [&](std::size_t layer) { each_of(layer, fetch); },
       [&](std::size_t layer) { each_of(layer, release); }, read.pack);
  for (const auto& file : found.files) file->check_unchanged();
  if (!sentence.own_head)
    attach(*made, modules_in(sentence), sentence.settings.truncate_dim,
           !sentence.modules.empty() && sentence.modules.back().scores);
  if (const auto& classifier = found.classifier) {
    attach_classifier(*made, classifier_modules(classifier->mean, classifier->activation,
                                                static_cast<float>(found.config.norm_eps), found.config.hidden,
                                                classifier->labels.size(), tensors));
    made->label_names = classifier->labels, made->problem_type = classifier->problem_type;
  }
  if (o.pack == MODERNBERT_PACK_MADE && !read.pack) {
    bool written = true;
    try {
      write(*made, o, read);
    } catch (const FormatError&) {
      if (must_write) throw;
      written = false;
    }
    if (written) {
      made.reset();  // not both in memory
      modernbert_options then = o;
      then.pack = MODERNBERT_PACK_TAKEN;
      return opened(folder, &then, with_text);
    }
  }
  made->folder = path, made->head_words = read.head, made->text = std::move(read.text);
  made->certificate = read.certificate;
  return made;
}

}  // namespace

Plan plan_of(const Config& c) {
  Plan plan{c.vocab, c.hidden, c.inter, c.heads, static_cast<float>(c.norm_eps), c.activation, {}};
  for (const LayerConfig& layer : c.layers)
    plan.layers.push_back({static_cast<std::ptrdiff_t>(layer.window), layer.theta, layer.kept});
  plan.types = c.types;
  return plan;
}

Config config_given(const modernbert_config& given) {
  Config c{};
  c.vocab = size_of("vocab", given.vocab, 1, kMaxSize), c.hidden = size_of("hidden", given.hidden, 1, kMaxSize);
  c.inter = size_of("inter", given.inter, 1, kMaxSize), c.heads = size_of("heads", given.heads, 1, kMaxSize);
  c.types = size_of("types", given.types, 0, kMaxSize);
  const std::size_t layers = size_of("layers", given.layers, 0, kMaxLayers);
  c.norm_eps = positive("norm_eps", given.norm_eps);
  if (!fits_float(c.norm_eps)) refuse("config->norm_eps is " + shown(c.norm_eps) + "; " + kFloatRange);
  c.norm_bias = c.attention_bias = c.mlp_bias = true;  // where they are given
  if (given.activation && !named_activation(given.activation, c.activation))
    refuse(std::string("config->activation is '") + given.activation + "'; supported: " + activation_names());
  if (c.hidden % c.heads || c.hidden / c.heads % 2)
    refuse("config->hidden is " + std::to_string(c.hidden) + " with " + std::to_string(c.heads) +
           " heads; it must be a multiple of them with an even head size");
  if (std::max({c.vocab, 3 * c.hidden, 2 * c.inter, c.types}) > kMaxElements / c.hidden)
    refuse("config describes matrices that are larger than any memory");
  if (layers) not_null(given.windows, "config->windows"), not_null(given.thetas, "config->thetas");
  for (std::size_t i = 0; i < layers; ++i)
    c.layers.push_back({given.windows[i] < 0 ? kAllVisible : std::min(given.windows[i], kMaxWindow),
                        positive("thetas[" + std::to_string(i) + "]", given.thetas[i]), kept_of(given, i)});
  return c;
}

}  // namespace refimpl

using namespace refimpl;

extern "C" {

int modernbert_open(const char* folder, const modernbert_options* options, modernbert_model** model) {
  return guarded([&] {
    not_null(model, "model");
    *model = opened(folder, options, false).release();
  });
}

int modernbert_open_text(const char* folder, const modernbert_options* options, modernbert_model** model) {
  return guarded([&] {
    not_null(model, "model");
    *model = opened(folder, options, true).release();
  });
}

int modernbert_pack(const char* folder, const modernbert_options* options) {
  return guarded([&] {
    modernbert_options o = options_of(options);
    o.struct_size = sizeof o, o.pack = MODERNBERT_PACK_MADE;
    opened(folder, &o, false, true);
  });
}

int modernbert_create(const modernbert_config* config, const modernbert_tensor* tensors, size_t count,
                      const modernbert_options* options, modernbert_model** model) {
  return guarded([&] {
    not_null(model, "model");
    const Config c = config_given(sized(config, "config"));
    const auto encoder = encoder_shapes(c);
    std::map<std::string, Shape> shapes(encoder.begin(), encoder.end());
    Modules modules = modules_given(*config, shapes);
    const GivenClassifier classifier = classifier_given(*config, shapes);
    const modernbert_options o = options_of(options);
    auto made = std::make_unique<modernbert_model>();
    made->choice = best_choice(o.tier_cap, o.dtype);
    RowSource embedding;
    const Tensors named = tensors_of(c, shapes, tensors, count, embedding);
    const auto nothing = [](std::size_t) {};  // the caller's memory stays as it is
    pack(*made, c, embedding, named, o, nothing, nothing);
    find_tensors(modules, named);
    attach(*made, modules, 0, false);
    if (classifier.labels)
      attach_classifier(*made, classifier_modules(classifier.mean, classifier.activation, static_cast<float>(c.norm_eps),
                                                  c.hidden, classifier.labels, named));
    *model = made.release();
  });
}

void modernbert_close(modernbert_model* model) { delete model; }

const char* modernbert_model_label(const modernbert_model* model, size_t i) {
  return model && i < model->label_names.size() ? model->label_names[i].c_str() : nullptr;
}

int modernbert_model_facts(const modernbert_model* model, modernbert_facts* facts) {
  return guarded([&] {
    const Engine& engine = *not_null(model, "model").engine;
    modernbert_facts& f = sized(facts, "facts");
    const auto size = [](std::size_t n) { return static_cast<std::int64_t>(n); };
    f.vocab = size(engine.plan.vocab), f.hidden = size(engine.plan.hidden), f.inter = size(engine.plan.inter);
    f.heads = size(engine.plan.heads), f.layers = size(engine.plan.layers.size());
    f.types = size(engine.plan.types);
    f.tier = model->choice.tier, f.dtype = model->choice.dtype, f.threads = model->threads;
    f.packed_bytes = engine.packed_bytes();
    f.modules = size(model->modules), f.width = size(model->width), f.scores = model->scores;
    f.labels = size(model->labels), f.pack = engine.pack() ? engine.pack()->path().c_str() : nullptr;
    f.certificate = static_cast<int>(model->certificate);
  });
}

}  // extern "C"
