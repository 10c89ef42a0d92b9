// A model from a folder or from memory.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <optional>
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
    const modernbert_options o = options_of(options);
    const Given given = model_given(sized(config, "config"), tensors, count);
    auto made = std::make_unique<modernbert_model>();
    made->choice = best_choice(o.tier_cap, o.dtype);
    const auto nothing = [](std::size_t) {};  // the caller's memory stays as it is
    pack(*made, given.config, given.embedding, given.tensors, o, nothing, nothing);
    attach(*made, given.modules, 0, false);
    if (!given.classifier.empty()) attach_classifier(*made, given.classifier);
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
