// Texts to vectors, scores and labels: what a folder says of texts, as refimpl/tasks has it and in its words.
//
// All texts are tokenized, cut and checked before any is computed; then some thousands of tokens at a time pass
// through the model, which changes no bit.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "abi/model.h"
#include "kernels/activations.h"
#include "modernbert_text.h"

namespace refimpl {
namespace {

// Of one pass; more gains no speed.
constexpr std::size_t kTokensAtATime = 4096;

enum class Task { embed, score, classify };

const TextSide& text_of(const modernbert_model& model) {
  if (!model.text) refuse("the model was opened without texts; modernbert_open_text opens it with them");
  return *model.text;
}

// The model gives what is asked for; throws std::invalid_argument otherwise.
void check_task(const modernbert_model& model, Task task) {
  if (task == Task::embed) {
    check_embeds(model);
    if (model.scores) refuse(model.folder + " scores pairs and gives no embeddings; see modernbert_score_pairs");
  } else if (task == Task::score && !model.labels) {
    refuse("a reranker needs a sequence_classification head, or modules that end in a Dense; " + model.folder + " has " +
           model.head_words);
  } else if (task == Task::classify && !model.classifier) {
    refuse("text-classification needs a model with a sequence_classification head (" + std::string(kClassifier) + "); " +
           model.folder + " has " + model.head_words);
  }
}

// -- options ----------------------------------------------------------------------------------------

// The caller's, in range and such that the task has a use for each.
modernbert_text_options options_of(const modernbert_text_options* given, Task task) {
  modernbert_text_options o{};
  if (given) o = sized(given, "options");
  const auto only = [](bool wrong, const char* name, const char* tasks) {
    if (wrong) refuse(std::string("options->") + name + " is for " + tasks + " alone");
  };
  const bool embeds = task == Task::embed;
  only(!embeds && o.role, "role", "modernbert_embed_texts");
  only(!embeds && o.width, "width", "modernbert_embed_texts");
  only(!embeds && o.normalize, "normalize", "modernbert_embed_texts");
  only(embeds && o.function, "function", "modernbert_score_pairs and modernbert_classify_texts");
  only(task == Task::classify && (o.prompt || o.prompt_name), o.prompt ? "prompt" : "prompt_name",
       "modernbert_embed_texts and modernbert_score_pairs");
  if (o.role < MODERNBERT_AS_TEXT || o.role > MODERNBERT_AS_DOCUMENT)
    refuse("options->role is " + std::to_string(o.role) + "; it must be a modernbert_role");
  if (o.truncation < MODERNBERT_CUT_OR_KEEP || o.truncation > MODERNBERT_KEEP)
    refuse("options->truncation is " + std::to_string(o.truncation) + "; it must be a modernbert_truncation");
  if (o.max_length < 0)
    refuse("options->max_length is " + std::to_string(o.max_length) + "; it must be at least 1, or 0 for the folder's");
  if (o.truncation == MODERNBERT_CUT_OR_KEEP)
    o.truncation = task == Task::classify && !o.max_length ? MODERNBERT_KEEP : MODERNBERT_CUT;
  return o;
}

// The text that goes before a text.
std::string prompt_of(const modernbert_text_options& o, const TextSettings& settings) {
  if (o.prompt) {
    const std::string_view prompt(o.prompt, o.prompt_bytes);
    check_utf8(prompt, "options->prompt");
    return std::string(prompt);
  }
  std::string name;
  if (o.prompt_name)
    name = o.prompt_name;
  else if (o.role)
    name = o.role == MODERNBERT_AS_QUERY ? "query" : "document";
  else if (settings.default_prompt_name)
    name = *settings.default_prompt_name;
  else
    return "";
  if (const auto found = settings.prompts.find(name); found != settings.prompts.end()) return found->second;
  if (name == "query" || name == "document") return "";
  Json::List known;
  std::map<std::string, std::string> all = settings.prompts;
  all["query"], all["document"];
  for (const auto& prompt : all) known.push_back({prompt.first});
  refuse("prompt_name " + Json{name}.shown() + " is unknown; known: " + Json{known}.shown());
}

// Most tokens of a text; 0: no limit.
std::size_t limit_of(const modernbert_text_options& o, const TextSide& side, Task task) {
  if (o.max_length) return static_cast<std::size_t>(o.max_length);
  const TextSettings& s = side.settings;
  if (o.role == MODERNBERT_AS_QUERY && s.query_length) return s.query_length;
  if (o.role == MODERNBERT_AS_DOCUMENT && s.document_length) return s.document_length;
  if (task != Task::classify && s.max_seq_length) return s.max_seq_length;
  return side.tokenizer.longest;
}

// -- texts to ids -----------------------------------------------------------------------------------

struct Encoded {
  std::vector<std::int64_t> ids, types, cu_seqlens{0};
  std::vector<std::int64_t> lost;
};

std::string_view view(const char* text, std::size_t bytes, const std::string& name) {
  return bytes ? std::string_view(&not_null(text, name.c_str()), bytes) : std::string_view();
}

void check_room(std::size_t limit, const Tokenizer& tokenizer, bool pairs) {
  const std::size_t special = tokenizer.template_tokens(pairs);
  if (limit <= special)
    refuse("max_length " + std::to_string(limit) + " leaves no room for text: " + (pairs ? "a pair" : "a text") + " has " +
           std::to_string(special) + " special tokens");
}

Encoded encoded(const TextSide& side, const modernbert_text* texts, std::size_t count, const std::string& before,
                std::size_t limit, int truncation, bool pairs_only) {
  const Tokenizer& tokenizer = *side.tokenizer.tokenizer;
  if (count) not_null(texts, "texts");
  const auto name = [](std::size_t i, const char* field) { return "texts[" + std::to_string(i) + "]." + field; };
  bool pairs = false;
  for (std::size_t i = 0; i < count; ++i) {
    const modernbert_text& t = texts[i];
    if (pairs_only && !t.pair) refuse("texts[" + std::to_string(i) + "] has no pair; a score is one of two texts");
    pairs = pairs || t.pair;
    check_utf8(view(t.text, t.bytes, name(i, "text")), name(i, "text").c_str());
    if (t.pair) check_utf8({t.pair, t.pair_bytes}, name(i, "pair").c_str());
  }
  if (limit) check_room(limit, tokenizer, pairs);
  Encoded out;
  Tokenized tokens;
  std::string joined;
  std::size_t first_long = 0, first_tokens = 0, too_long = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const modernbert_text& t = texts[i];
    std::string_view text(t.bytes ? t.text : "", t.bytes);
    if (!before.empty()) text = joined = before + std::string(text);
    tokenizer.encode(text, t.pair ? std::optional(std::string_view(t.pair, t.pair_bytes)) : std::nullopt, true, tokens);
    std::size_t lost = 0;
    if (limit && truncation != MODERNBERT_KEEP && tokens.ids.size() > limit) {
      if (!too_long++) first_long = i, first_tokens = tokens.ids.size();
      if (truncation == MODERNBERT_CUT) lost = cut(tokens, limit, side.tokenizer.cut_left);
    }
    out.lost.push_back(static_cast<std::int64_t>(lost));
    out.ids.insert(out.ids.end(), tokens.ids.begin(), tokens.ids.end());
    out.types.insert(out.types.end(), tokens.types.begin(), tokens.types.end());
    out.cu_seqlens.push_back(static_cast<std::int64_t>(out.ids.size()));
  }
  if (too_long && truncation == MODERNBERT_REFUSE)
    refuse("texts[" + std::to_string(first_long) + "] has " + std::to_string(first_tokens) + " tokens, over max_length " +
           std::to_string(limit) + " (" + std::to_string(too_long) + " of " + std::to_string(count) +
           " texts are); shorten it, raise max_length, or let it be cut");
  return out;
}

// Tokens at the start of a text that belong to its prompt; of a prompt over the limit those that are left of it, so
// that something stands behind it.
std::size_t prompt_tokens(const TextSide& side, const std::string& prompt, std::size_t limit) {
  if (prompt.empty()) return 0;
  Tokenized tokens;
  side.tokenizer.tokenizer->encode(prompt, std::nullopt, true, tokens);
  if (limit) cut(tokens, limit, side.tokenizer.cut_left);
  return tokens.ids.size() - (!tokens.sequences.empty() && tokens.sequences.back() < 0);
}

// f(batch, its first text) for some thousands of tokens at a time.
template <class F>
void each_batch(const modernbert_model& model, const Encoded& texts, F f) {
  const std::size_t count = texts.lost.size();
  for (std::size_t first = 0, last; first < count; first = last) {
    const std::int64_t begin = texts.cu_seqlens[first];
    for (last = first + 1; last < count; ++last)
      if (static_cast<std::size_t>(texts.cu_seqlens[last + 1] - begin) > kTokensAtATime) break;
    std::vector<std::int64_t> cu;
    for (std::size_t i = first; i <= last; ++i) cu.push_back(texts.cu_seqlens[i] - begin);
    modernbert_input input{};
    input.struct_size = sizeof input, input.sequences = static_cast<std::int64_t>(last - first);
    input.cu_seqlens = cu.data(), input.ids = texts.ids.data() + begin;
    if (model.engine->plan.types) input.token_types = texts.types.data() + begin;
    f(batch_of(model.engine->plan, input), first);
  }
}

// -- scores -----------------------------------------------------------------------------------------

// The name of the function from logits to scores.
std::string function_of(const modernbert_model& model, const modernbert_text_options& o, Task task) {
  if (o.function) return o.function;
  if (task == Task::classify) {
    if (model.problem_type == "regression") return "none";
    return model.problem_type == "multi_label_classification" || model.labels == 1 ? "sigmoid" : "softmax";
  }
  const TextSide& side = *model.text;
  if (!side.score_named) return model.labels == 1 ? "sigmoid" : "none";
  if (!side.score_fault.empty()) refuse(side.score_fault + "; name one in options->function");
  return activation_name(side.score);
}

void scored(const modernbert_model& model, Task task, const modernbert_text* texts, std::size_t count,
            const modernbert_text_options* options, const modernbert_run* run, float* out, std::size_t out_count,
            std::int64_t* lost) {
  const TextSide& side = text_of(model);
  const modernbert_run how = run_of(model, run);
  check_task(model, task);
  const modernbert_text_options o = options_of(options, task);
  const std::string function = function_of(model, o, task);
  if (modernbert_scores(function.c_str(), 0, 0, nullptr, nullptr)) refuse("options->" + std::string(modernbert_last_error()));
  const std::string before = task == Task::classify ? "" : prompt_of(o, side.settings);
  if (count > kMaxElements / model.labels) refuse("scores of so many texts are larger than any memory");
  check_out(out, out_count, "texts", count, model.labels);
  const Encoded ids =
      encoded(side, texts, count, before, limit_of(o, side, task), o.truncation, task == Task::score);
  each_batch(model, ids, [&](const Batch& batch, std::size_t first) {
    logits(model, batch, how, out + first * model.labels);
  });
  modernbert_scores(function.c_str(), count, model.labels, out, out);
  if (lost) std::copy(ids.lost.begin(), ids.lost.end(), lost);
}

}  // namespace
}  // namespace refimpl

using namespace refimpl;

extern "C" {

int modernbert_text_facts_of(const modernbert_model* model, modernbert_text_facts* facts) {
  return guarded([&] {
    const TextSide& side = text_of(not_null(model, "model"));
    modernbert_text_facts& f = sized(facts, "facts");
    const TextSettings& s = side.settings;
    f.longest = static_cast<std::int64_t>(s.max_seq_length ? s.max_seq_length : side.tokenizer.longest);
    f.query_length = static_cast<std::int64_t>(s.query_length);
    f.document_length = static_cast<std::int64_t>(s.document_length);
    f.default_prompt = s.default_prompt_name ? s.default_prompt_name->c_str() : nullptr;
  });
}

int modernbert_prompt(const modernbert_model* model, size_t i, const char** name, const char** text) {
  return guarded([&] {
    const auto& prompts = text_of(not_null(model, "model")).settings.prompts;
    not_null(name, "name") = not_null(text, "text") = nullptr;
    if (i >= prompts.size()) return;
    const auto found = std::next(prompts.begin(), static_cast<std::ptrdiff_t>(i));
    *name = found->first.c_str(), *text = found->second.c_str();
  });
}

int modernbert_embed_texts(const modernbert_model* model, const modernbert_text* texts, size_t count,
                           const modernbert_text_options* options, const modernbert_run* run, float* out,
                           size_t out_count, int64_t* lost) {
  return guarded([&] {
    const TextSide& side = text_of(not_null(model, "model"));
    const modernbert_run how = run_of(*model, run);
    check_task(*model, Task::embed);
    const modernbert_text_options o = options_of(options, Task::embed);
    const std::size_t widest = model->head->width();
    if (o.width < 0 || static_cast<std::uint64_t>(o.width) > widest)
      refuse("options->width is " + std::to_string(o.width) + "; it must be in 1 .. " + std::to_string(widest) +
             ", or 0 for the default");
    const std::size_t width = o.width ? static_cast<std::size_t>(o.width) : model->width;
    const std::string before = prompt_of(o, side.settings);
    const std::size_t limit = limit_of(o, side, Task::embed);
    if (count > kMaxElements / width) refuse("vectors of so many texts are larger than any memory");
    check_out(out, out_count, "texts", count, width);
    const Encoded ids = encoded(side, texts, count, before, limit, o.truncation, false);
    const std::size_t skipped = prompt_tokens(side, before, limit);
    each_batch(*model, ids, [&](const Batch& batch, std::size_t first) {
      embed(*model, batch, how, width, o.normalize != 0, skipped, out + first * width);
    });
    if (lost) std::copy(ids.lost.begin(), ids.lost.end(), lost);
  });
}

int modernbert_score_pairs(const modernbert_model* model, const modernbert_text* pairs, size_t count,
                           const modernbert_text_options* options, const modernbert_run* run, float* out,
                           size_t out_count, int64_t* lost) {
  return guarded(
      [&] { scored(not_null(model, "model"), Task::score, pairs, count, options, run, out, out_count, lost); });
}

int modernbert_classify_texts(const modernbert_model* model, const modernbert_text* texts, size_t count,
                              const modernbert_text_options* options, const modernbert_run* run, float* out,
                              size_t out_count, int64_t* lost) {
  return guarded(
      [&] { scored(not_null(model, "model"), Task::classify, texts, count, options, run, out, out_count, lost); });
}

}  // extern "C"
