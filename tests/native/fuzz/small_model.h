// The smallest model that there is: one layer, hidden 2, one head; its files as text.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace small {

constexpr const char* kConfig =
    "{\"model_type\":\"modernbert\",\"vocab_size\":3,\"hidden_size\":2,\"intermediate_size\":2,"
    "\"num_hidden_layers\":1,\"num_attention_heads\":1,\"local_attention\":4,\"norm_eps\":1e-05,"
    "\"layer_types\":[\"full_attention\"],\"rope_parameters\":{\"full_attention\":"
    "{\"rope_type\":\"default\",\"rope_theta\":160000.0}}}";

// Name -> shape, the last axis 0 for a vector.
inline const std::vector<std::pair<std::string, std::pair<int, int>>>& shapes() {
  static const std::vector<std::pair<std::string, std::pair<int, int>>> all = {
      {"embeddings.tok_embeddings.weight", {3, 2}}, {"embeddings.norm.weight", {2, 0}},
      {"layers.0.attn.Wqkv.weight", {6, 2}},        {"layers.0.attn.Wo.weight", {2, 2}},
      {"layers.0.mlp_norm.weight", {2, 0}},         {"layers.0.mlp.Wi.weight", {4, 2}},
      {"layers.0.mlp.Wo.weight", {2, 2}},           {"final_norm.weight", {2, 0}}};
  return all;
}

inline int count(const std::pair<int, int>& shape) { return shape.first * (shape.second ? shape.second : 1); }

inline std::string header() {
  std::string text;
  int at = 0;
  for (const auto& [name, shape] : shapes()) {
    const std::string axes = std::to_string(shape.first) + (shape.second ? "," + std::to_string(shape.second) : "");
    const int end = at + 4 * count(shape);
    text += (text.empty() ? "{\"" : ",\"") + name + "\":{\"dtype\":\"F32\",\"shape\":[" + axes +
            "],\"data_offsets\":[" + std::to_string(at) + "," + std::to_string(end) + "]}";
    at = end;
  }
  text += "}";
  while (text.size() % 8) text += ' ';
  return text;
}

inline std::string data() {
  int n = 0;
  for (const auto& [name, shape] : shapes()) n += 4 * count(shape);
  return std::string(static_cast<std::size_t>(n), '\0');
}

// length | header | data
inline std::string file(const std::string& header, const std::string& data) {
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(static_cast<std::uint64_t>(header.size()) >> (8 * i));
  return out + header + data;
}

inline std::string weights() { return file(header(), data()); }

}  // namespace small
