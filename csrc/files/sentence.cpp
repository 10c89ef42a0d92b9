// modules.json and what it names: each json object by one reader, which accounts for every key.
#include "files/sentence.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>
#include <utility>

#include "files/config.h"
#include "files/finite.h"
#include "files/head_keys.h"
#include "files/json.h"
#include "files/safetensors.h"
#include "kernels/activations.h"

namespace refimpl {
namespace {

using Kind = SentenceModule::Kind;

constexpr const char *kEmbedding = "sentence_embedding", *kScores = "scores";
constexpr const char* kModuleNames[] = {"Pooling", "Dense", "LayerNorm", "Normalize"};  // as Kind
constexpr const char* kSimilarities[] = {"cosine", "dot", "euclidean", "manhattan"};
// Beyond any model; products of two stay far from overflow.
constexpr std::uint64_t kMaxWidth = std::uint64_t{1} << 31;

// One json object being read: values by key with their type, and every key accounted for.
class Entry {
 public:
  Entry(std::string file, const Json& values) : file_(std::move(file)), values_(values) {}

  [[noreturn]] void refuse(const std::string& key, const std::string& wanted) const {
    const Json* value = values_.find(key);
    throw FormatError(file_, key, kNoOffset, "is " + (value ? value->shown() : "not given") + "; " + wanted);
  }
  [[noreturn]] void refuse(const std::string& message) const { throw FormatError(file_, message); }

  // Null where the key is not there, or null and `nullable`.
  template <class T>
  const T* maybe(const std::string& key, const char* kind, bool nullable = false) {
    taken_.insert(key);
    const Json* value = values_.find(key);
    if (!value || (nullable && value->is_null())) return nullptr;
    if (const T* found = value->get<T>()) return found;
    refuse(key, std::string("it must be ") + kind);
  }
  template <class T>
  const T& must(const std::string& key, const char* kind) {
    if (const T* found = maybe<T>(key, kind)) return *found;
    throw FormatError(file_, key, kNoOffset, "this key is missing");
  }

  bool flag(const std::string& key, bool otherwise) {
    const bool* given = maybe<bool>(key, "true or false");
    return given ? *given : otherwise;
  }
  std::string text(const std::string& key, const std::string& otherwise) {
    const std::string* given = maybe<std::string>(key, "a string");
    return given ? *given : otherwise;
  }
  std::int64_t width(const std::string& key) {
    const JsonInteger& n = must<JsonInteger>(key, "an integer");
    if (n.magnitude > kMaxWidth) refuse(key, "at most " + std::to_string(kMaxWidth));
    return (n.negative ? -1 : 1) * static_cast<std::int64_t>(n.magnitude);
  }
  // At least 1; 0 where it is not given, or null.
  std::uint64_t positive(const std::string& key) {
    const JsonInteger* n = maybe<JsonInteger>(key, "an integer, or null", true);
    if (n && (n->negative || n->magnitude < 1)) refuse(key, "it must be at least 1, or null");
    return n ? n->magnitude : 0;
  }

  const Json* value(const std::string& key) const { return values_.find(key); }

  // The value of a key that is asked for; null where it is not there, or null.
  const Json* given(const std::string& key) {
    taken_.insert(key);
    const Json* value = values_.find(key);
    return value && !value->is_null() ? value : nullptr;
  }

  void finish(const std::set<std::string>& harmless = {}) const {
    std::string known;
    for (const std::string& key : taken_) known += (known.empty() ? "" : ", ") + key;
    for (const JsonMember& member : *values_.get<Json::Object>())
      if (!taken_.count(member.key) && !harmless.count(member.key)) throw FormatError(file_, member.key, kNoOffset, "unknown key; known: " + known);
  }

 private:
  const std::string file_;
  const Json& values_;
  std::set<std::string> taken_;
};

// -- modules --------------------------------------------------------------------------------------

constexpr struct {
  const char* key;
  Pooling mode;
} kFlags[] = {{"pooling_mode_cls_token", Pooling::cls},
              {"pooling_mode_max_tokens", Pooling::max},
              {"pooling_mode_mean_tokens", Pooling::mean},
              {"pooling_mode_mean_sqrt_len_tokens", Pooling::mean_sqrt_len_tokens},
              {"pooling_mode_weightedmean_tokens", Pooling::weightedmean},
              {"pooling_mode_lasttoken", Pooling::lasttoken}};

void read_pooling(Entry& entry, SentenceModule& m) {
  for (const auto& known : kFlags)
    if (entry.flag(known.key, false)) m.modes.push_back(known.mode);
  if (m.modes.empty()) m.modes = {Pooling::mean};
  if (const Json* given = entry.value("pooling_mode")) {
    m.modes.clear();
    const auto take = [&](const Json& item) {
      const std::string* name = item.get<std::string>();
      Pooling mode;
      if (!name || !named_pooling(*name, mode)) entry.refuse("pooling_mode", "supported: " + pooling_names());
      m.modes.push_back(mode);
    };
    if (given->get<std::string>()) {
      entry.maybe<std::string>("pooling_mode", "a string"), take(*given);
    } else {
      for (const Json& item : entry.must<Json::List>("pooling_mode", "a string or a list")) take(item);
    }
    if (m.modes.empty()) entry.refuse("pooling_mode", "supported: " + pooling_names());
  }
  const char* old_key = "word_embedding_dimension";
  m.width_in = entry.width(entry.value(old_key) ? old_key : "embedding_dimension");
  m.include_prompt = entry.flag("include_prompt", true);
}

// A class of torch, where it is or as torch.nn has it.
constexpr struct {
  const char *module, *name;
  Activation activation;
} kTorch[] = {{"activation.GELU", "GELU", Activation::gelu},       {"activation.SiLU", "SiLU", Activation::silu},
              {"activation.ReLU", "ReLU", Activation::relu},       {"activation.Tanh", "Tanh", Activation::tanh},
              {"activation.Sigmoid", "Sigmoid", Activation::sigmoid}, {"linear.Identity", "Identity", Activation::linear}};

void read_dense(Entry& entry, SentenceModule& m) {
  const char* key = "activation_function";
  if (!torch_activation(entry.text(key, "torch.nn.modules.activation.Tanh"), m.activation))
    entry.refuse(key, "supported: " + torch_activations());
  if (entry.text("module_input_name", kEmbedding) != kEmbedding)
    entry.refuse("module_input_name", std::string("supported: ") + kEmbedding);
  const std::string output = entry.text("module_output_name", kEmbedding);
  if (output != kEmbedding && output != kScores)
    entry.refuse("module_output_name", std::string("supported: ") + kEmbedding + ", " + kScores);
  m.scores = output == kScores;
  if (entry.flag("use_residual", false)) entry.refuse("use_residual", "a residual connection is not supported");
  m.width_in = entry.width("in_features"), m.width_out = entry.width("out_features");
  if (m.width_out < 1) entry.refuse("out_features", "it must be at least 1");
  m.has_bias = entry.flag("bias", true);
}

void read_module(FolderFiles& files, SentenceModule& m) {
  const std::string file = join(m.folder, "config.json");
  static const Json nothing{Json::Object{}};
  const bool there = m.kind != Kind::normalize || is_file(file);
  const Json& values = there ? files.json(file, true) : nothing;
  Entry entry(file, values);
  switch (m.kind) {
    case Kind::pooling: read_pooling(entry, m); break;
    case Kind::dense: read_dense(entry, m); break;
    case Kind::layer_norm: m.width_in = entry.width("dimension"); break;
    case Kind::normalize:
      for (const char* key : {"module_input_name", "module_output_name"})
        if (entry.text(key, kEmbedding) != kEmbedding) entry.refuse(key, std::string("supported: ") + kEmbedding);
      break;
  }
  entry.finish();
}

// The class of sentence-transformers' own modules, where they are and where older versions had them:
// sentence_transformers.{models,base.modules,sentence_transformer.modules}[.file].Class; "" for others.
std::string own_class(const std::string& path) {
  const auto word = [](const std::string& text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
      return c == '_' || c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    });
  };
  for (const std::string place : {"models.", "base.modules.", "sentence_transformer.modules."}) {
    const std::string first = "sentence_transformers." + place;
    if (path.rfind(first, 0) != 0) continue;
    const std::string rest = path.substr(first.size());
    const std::size_t dot = rest.find('.');
    if (dot == std::string::npos) return word(rest) ? rest : "";
    if (word(rest.substr(0, dot)) && word(rest.substr(dot + 1))) return rest.substr(dot + 1);
  }
  return "";
}

std::string supported_modules() {
  std::string text = "supported are sentence-transformers' own Transformer first, then ";
  for (const char* name : kModuleNames) text += std::string(name == kModuleNames[0] ? "" : ", ") + name;
  return text;
}

// The modules of modules.json, kind and folder alone; the first's folder, the Transformer's, apart.
std::vector<SentenceModule> module_list(FolderFiles& files, const std::string& folder, const std::string& file,
                                        std::string& transformer) {
  const Json& listed = files.json(file, false);
  std::vector<SentenceModule> out;
  std::size_t i = 0;
  for (const Json& values : *listed.get<Json::List>()) {
    if (!values.get<Json::Object>()) throw FormatError(file, "module " + std::to_string(i) + " is no object");
    Entry entry(file, values);
    const std::string name = own_class(entry.must<std::string>("type", "a string"));
    const std::string& path = entry.must<std::string>("path", "a string");
    if (path.rfind('/', 0) == 0 || ("/" + path + "/").find("/../") != std::string::npos ||
        path.find('\0') != std::string::npos)
      entry.refuse("path", "it must stay inside the folder");
    const auto known = std::find(std::begin(kModuleNames), std::end(kModuleNames), name);
    if (i == 0 ? name != "Transformer" : known == std::end(kModuleNames)) entry.refuse("type", supported_modules());
    const Json::List* arguments = entry.maybe<Json::List>("kwargs", "a list");
    if (arguments && !arguments->empty()) entry.refuse("kwargs", "modules with extra arguments are not supported");
    entry.finish({"idx", "name"});
    const std::string place = path.empty() || path == "." ? folder : join(folder, path);
    if (i == 0)
      transformer = place;
    else
      out.push_back({static_cast<Kind>(known - std::begin(kModuleNames)), std::to_string(i) + "_" + name, place});
    ++i;
  }
  if (!i) throw FormatError(file, "it lists no module");
  return out;
}

// null, false, 0, [], {}: prompts that the readers in Python take for "".
bool nothing_to_python(const Json& value) {
  const bool* flag = value.get<bool>();
  const JsonInteger* n = value.get<JsonInteger>();
  const double* x = value.get<double>();
  const Json::List* list = value.get<Json::List>();
  const Json::Object* object = value.get<Json::Object>();
  return value.is_null() || (flag && !*flag) || (n && !n->magnitude) || (x && *x == 0.0) || (list && list->empty()) ||
         (object && object->empty());
}

// -- settings -------------------------------------------------------------------------------------

constexpr const char* kKinds[] = {"SentenceTransformer", "CrossEncoder"};

// A number of tokens: an integer of at least 1, or so large (1e30) that it is no limit.
std::uint64_t length_of(Entry& entry, const char* key) {
  const Json* value = entry.given(key);
  if (!value) return 0;
  const JsonInteger* n = value->get<JsonInteger>();
  const double* x = value->get<double>();
  if (!n && !x) entry.refuse(key, "it must be a number, or null");
  const double length = x ? *x : (n->negative ? -1.0 : 1.0) * static_cast<double>(n->magnitude);
  if (length >= 2147483648.0) return 0;
  if (length < 1.0 || length != std::floor(length)) entry.refuse(key, "it must be an integer of at least 1, or null");
  return static_cast<std::uint64_t>(length);
}

// Keys of sentence_bert_config.json that are supported only where they do nothing: null, one of these
// texts, or an empty object. As NEUTRAL_IN_TRANSFORMER of refimpl/files/sentence_files.py.
struct Neutral {
  const char* key;
  std::set<std::string> texts;
  bool empty_object;
  const char* why;
};

void read_transformer(FolderFiles& files, const std::string& file, TextSettings& out) {
  static const Json nothing{Json::Object{}};
  static const char* const no_arguments = "arguments that override a file are not supported";
  static const Neutral neutral[] = {
      {"transformer_task", {"feature-extraction", "sequence-classification"}, false,
       "supported: feature-extraction, sequence-classification"},
      {"module_output_name", {"token_embeddings", "scores"}, false, "supported: token_embeddings, scores"},
      {"query_expansion", {}, false, "queries that are padded with tokens to score are not supported"},
      {"processing_kwargs", {}, true, "arguments of the tokenizer's call are not supported"},
      {"tokenizer_args", {}, true, no_arguments},
      {"processor_kwargs", {}, true, no_arguments},
      {"config_args", {}, true, no_arguments},
      {"config_kwargs", {}, true, no_arguments}};
  const Json& values = is_file(file) ? files.json(file, true) : nothing;
  Entry entry(file, values);
  out.max_seq_length = length_of(entry, "max_seq_length");
  out.query_length = length_of(entry, "query_length");
  out.document_length = length_of(entry, "document_length");
  out.do_lower_case = entry.flag("do_lower_case", false);
  for (const Neutral& known : neutral) {
    const Json* value = entry.given(known.key);
    if (!value) continue;
    const std::string* text = value->get<std::string>();
    const Json::Object* object = value->get<Json::Object>();
    if (!(text && known.texts.count(*text)) && !(known.empty_object && object && object->empty()))
      entry.refuse(known.key, known.why);
  }
  const Json::Object* listed = entry.maybe<Json::Object>("modality_config", "an object");
  const Json* text = listed ? entry.value("modality_config")->find("text") : nullptr;
  const Json* method = text ? text->find("method") : nullptr;
  const std::string* name = method ? method->get<std::string>() : nullptr;
  if (text && (!text->get<Json::Object>() || (method && (!name || *name != "forward"))))
    entry.refuse("modality_config", "text must go through the method 'forward'");
  entry.finish({"unpad_inputs", "model_args", "model_kwargs"});
}

// -- weights --------------------------------------------------------------------------------------

// Values as float32, checked.
std::vector<float> values_of(const FileTensor& tensor) {
  const std::string& dtype = tensor.dtype;
  if (dtype != "F32" && dtype != "F16" && dtype != "BF16" && dtype != "F64")
    throw tensor.error("dtype " + dtype + " holds no floats");
  const std::size_t count = tensor.count();
  tensor.fetch();
  check_finite(tensor);
  std::vector<float> out(count);
  for (std::size_t i = 0; i < count; ++i) out[i] = float_at(tensor.data(), dtype, i);
  tensor.release();
  return out;
}

// Where the values of a module's tensor go, and the shape that they have.
struct Needed {
  std::string key;
  Shape shape;
  std::vector<float>* values;
};

std::vector<Needed> needed_by(SentenceModule& m, std::uint64_t width) {
  if (m.kind == Kind::layer_norm) return {{"norm.weight", {width}, &m.weight}, {"norm.bias", {width}, &m.bias}};
  if (m.kind != Kind::dense) return {};
  const auto out = static_cast<std::uint64_t>(m.width_out);
  std::vector<Needed> needed = {{"linear.weight", {out, width}, &m.weight}};
  if (m.has_bias) needed.push_back({"linear.bias", {out}, &m.bias});
  return needed;
}

// The file of a module's tensors; none where it has none.
std::unique_ptr<Safetensors> weights_of(FolderFiles& files, const SentenceModule& m) {
  const std::string file = join(m.folder, "model.safetensors");
  if (!is_file(file)) {
    if (is_file(join(m.folder, "pytorch_model.bin"))) throw FormatError(file, no_weights(m.folder));
    return nullptr;
  }
  auto opened = std::make_unique<Safetensors>(file);
  files.seen(opened->file());
  return opened;
}

}  // namespace

bool torch_activation(const std::string& path, Activation& found) {
  for (const auto& known : kTorch)
    if (path == std::string("torch.nn.modules.") + known.module || path == std::string("torch.nn.") + known.name) {
      found = known.activation;
      return true;
    }
  return false;
}

std::string torch_activations() {
  std::string out;
  for (const auto& known : kTorch) out += (out.empty() ? "torch.nn.modules." : ", torch.nn.modules.") + std::string(known.module);
  return out;
}

TextSettings read_settings(FolderFiles& files, const std::string& folder, const std::string& root) {
  TextSettings out;
  static const Json nothing{Json::Object{}};
  const std::string file = join(folder, "config_sentence_transformers.json");
  const Json& values = is_file(file) ? files.json(file, true) : nothing;
  Entry entry(file, values);
  if (const Json::Object* given = entry.maybe<Json::Object>("prompts", "an object")) {
    for (const JsonMember& prompt : *given) {
      const std::string* text = prompt.value.get<std::string>();
      if (!text && !nothing_to_python(prompt.value)) entry.refuse("prompts", "it must map names to texts");
      out.prompts[prompt.key] = text ? *text : "";
    }
  }
  const std::string* name = entry.maybe<std::string>("default_prompt_name", "a string, or null", true);
  if (name && *name != "query" && *name != "document" && !out.prompts.count(*name)) {
    Json::List names;
    for (const auto& prompt : out.prompts) names.push_back({prompt.first});
    entry.refuse("default_prompt_name", "prompts has " + Json{names}.shown());
  }
  const std::string* similarity = entry.maybe<std::string>("similarity_fn_name", "a string, or null", true);
  if (similarity && std::find(std::begin(kSimilarities), std::end(kSimilarities), *similarity) == std::end(kSimilarities))
    entry.refuse("similarity_fn_name", "supported: cosine, dot, euclidean, manhattan");

  const std::string kind = entry.text("model_type", kKinds[0]);
  if (kind != kKinds[0] && kind != kKinds[1])
    entry.refuse("model_type", std::string("supported: ") + kKinds[0] + ", " + kKinds[1]);
  out.truncate_dim = entry.positive("truncate_dim");
  if (name) out.default_prompt_name = *name;
  if (const auto* path = entry.maybe<std::string>("activation_fn", "a string, or null", true)) out.activation_fn = *path;
  entry.finish({"__version__", "requirements", "keep_in_fp32_modules"});
  read_transformer(files, join(root, "sentence_bert_config.json"), out);
  return out;
}

SentenceFolder read_sentence(FolderFiles& files, const std::string& folder) {
  if (!is_folder(folder)) throw FormatError(folder, "this folder is missing");
  SentenceFolder out;
  out.root = folder;
  if (const std::string file = join(folder, "modules.json"); is_file(file))
    out.file = file, out.modules = module_list(files, folder, file, out.root);
  const std::string config = join(out.root, "config.json");
  const Json& values = files.json(config, true);
  config_of(values, config);  // what is wrong there is told first
  check_head_keys(values, config, out.modules.empty());
  auto& modules = out.modules;
  if (modules.empty()) {
    const Json* described = values.find("refimpl_head");
    out.own_head = described && !described->is_null();
    return out;
  }
  const std::string& file = out.file;
  for (SentenceModule& m : modules) read_module(files, m);
  const auto pooling = [](const SentenceModule& m) { return m.kind == Kind::pooling; };
  if (!pooling(modules[0]) || std::any_of(modules.begin() + 1, modules.end(), pooling))
    throw FormatError(file, "the Transformer must be followed by the only Pooling");
  if (std::any_of(modules.begin(), modules.end() - 1, [](const SentenceModule& m) { return m.scores; }))
    throw FormatError(file, "only the last Dense may write scores");
  out.settings = read_settings(files, folder, out.root);
  return out;
}

void read_module_weights(FolderFiles& files, SentenceFolder& sentence, std::uint64_t hidden) {
  std::vector<std::uint64_t> widths = {hidden};  // of what each module takes
  for (const SentenceModule& m : sentence.modules) {
    if (m.kind != Kind::normalize && m.width_in != static_cast<std::int64_t>(widths.back()))
      throw FormatError(sentence.file, m.name + " takes vectors of " + std::to_string(m.width_in) + ", it gets " +
                                           std::to_string(widths.back()));
    widths.push_back(m.kind == Kind::pooling ? hidden * m.modes.size()
                     : m.kind == Kind::dense ? static_cast<std::uint64_t>(m.width_out)
                                             : widths.back());
  }
  struct Opened {
    std::string module;
    std::unique_ptr<Safetensors> file;
    std::vector<Needed> needed;
    const FileTensor* find(const std::string& key) const {
      if (file)
        for (const FileTensor& tensor : file->tensors())
          if (tensor.name == key) return &tensor;
      return nullptr;
    }
  };
  std::vector<Opened> all;
  for (std::size_t i = 0; i < sentence.modules.size(); ++i) {
    SentenceModule& m = sentence.modules[i];
    all.push_back({m.name, weights_of(files, m), needed_by(m, widths[i])});
  }
  std::vector<std::string> missing;
  for (const Opened& one : all)
    for (const Needed& n : one.needed)
      if (!one.find(n.key)) missing.push_back(one.module + "." + n.key);
  if (!missing.empty()) throw are_missing(sentence.file, missing, {});
  for (const Opened& one : all) {
    if (!one.file) continue;
    for (const FileTensor& tensor : one.file->tensors()) {
      const auto wanted =
          std::find_if(one.needed.begin(), one.needed.end(), [&](const Needed& n) { return n.key == tensor.name; });
      if (wanted == one.needed.end()) throw tensor.error(kNoPart);
      if (tensor.shape != wanted->shape)
        throw tensor.error("its shape is " + shape_text(tensor.shape) + ", not " + shape_text(wanted->shape));
    }
  }
  for (const Opened& one : all) {
    for (const Needed& n : one.needed) *n.values = values_of(*one.find(n.key));
    if (one.file) one.file->check_unchanged();
  }
}

}  // namespace refimpl
