// Keys and values as amx_attention.inl reads them: bfloat16 tiles in blocks of 32 slots. Included like
// amx_gemm.inl, after amx_operand.inl.
//
// A block of keys is, for each 32 components, two tiles whose columns are 16 keys each, pairs of
// components one under the other. A block of values is, for each 16 components, one tile whose columns
// are these, pairs of slots one under the other. head_dim is filled up to whole tiles.

constexpr std::size_t kSlotBlock = 32;

inline std::size_t padded_head(std::size_t head_dim) { return round_up(head_dim, kTileDepth); }
inline std::size_t block_bytes(std::size_t head_dim) { return kSlotBlock * padded_head(head_dim) * sizeof(bf16); }
inline std::size_t kv_bytes(std::size_t slots, std::size_t head_dim) {
  return slots / kSlotBlock * block_bytes(head_dim);
}

// The block that holds a slot of a head.
REFIMPL_INLINE char* block_of(const Heads& h, void* all, std::size_t head, std::size_t slot) {
  return static_cast<char*>(all) + head * kv_bytes(h.slots, h.head_dim) + slot / kSlotBlock * block_bytes(h.head_dim);
}

// Where component i of the key stands whose slot's place in its block is `place`.
REFIMPL_INLINE bf16* key_at(char* block, std::size_t place, std::size_t i) {
  const std::size_t tile = i / kTileDepth * 2 + place / kTile;
  return reinterpret_cast<bf16*>(block + tile * kTileBytes + i % kTileDepth / 2 * kTileLine) + place % kTile * 2 + i % 2;
}

// The same of a value.
REFIMPL_INLINE const bf16* value_at(const char* block, std::size_t place, std::size_t i) {
  return reinterpret_cast<const bf16*>(block + i / kTile * kTileBytes + place / 2 * kTileLine) + i % kTile * 2 + place % 2;
}

// Components i .. i + n of a key, n <= 16.
REFIMPL_INLINE void place_key_part(char* block, std::size_t place, std::size_t i, f32 v, int n) {
  if (n == f32::lanes && i % kTile == 0) {  // eight whole pairs of one tile
    const __m256i rows = _mm256_setr_epi32(0, 16, 32, 48, 64, 80, 96, 112);
    _mm256_i32scatter_epi32(key_at(block, place, i), rows, narrow(v), 4);
    return;
  }
  bf16 part[f32::lanes];
  store_bits(part, narrow(v));
  for (int l = 0; l < n; ++l) *key_at(block, place, i + l) = part[l];
}

REFIMPL_INLINE void place_key(const Heads& h, std::size_t token, std::size_t head, std::size_t i, f32 v0, f32 v1,
                              int n) {
  const std::size_t slot = h.slot[token], place = slot % kSlotBlock, half = h.head_dim / 2;
  char* block = block_of(h, h.keys, head, slot);
  place_key_part(block, place, i, v0, n);
  place_key_part(block, place, half + i, v1, n);
  if (i + n == half)  // components that fill up meet zeros of q, and must not be NaN
    for (std::size_t j = h.head_dim; j < padded_head(h.head_dim); ++j) key_at(block, place, j)->bits = 0;
}

// Components i .. i + n of a value: every other number of a line of a tile, so neighbours stay as they are.
REFIMPL_INLINE void place_value_part(char* block, std::size_t place, std::size_t i, f32 v, int n) {
  const __m512i wide = _mm512_cvtepu16_epi32(narrow(v));
  const bool odd = place % 2;
  for (int l = 0; l < n;) {
    const std::size_t column = (i + l) % kTile;  // of the tile; a part may cross into the next one
    const int here = n - l < static_cast<int>(kTile - column) ? n - l : static_cast<int>(kTile - column);
    char* line = block + (i + l) / kTile * kTileBytes + place / 2 * kTileLine;
    const __mmask16 lanes = static_cast<__mmask16>(((1u << here) - 1u) << l);
    const __m512i packed = _mm512_maskz_compress_epi32(lanes, wide);
    const __mmask32 numbers = static_cast<__mmask32>(((1ull << 2 * here) - 1) & (odd ? 0xaaaaaaaau : 0x55555555u));
    _mm512_mask_storeu_epi16(line + column * 4, numbers, odd ? _mm512_slli_epi32(packed, 16) : packed);
    l += here;
  }
}

REFIMPL_INLINE void place_value(const Heads& h, std::size_t token, std::size_t head, std::size_t i, f32 v0, f32 v1,
                                int n) {
  const std::size_t slot = h.slot[token];
  char* block = block_of(h, h.values, head, slot);
  const bool hidden = h.visible && !h.visible[token];
  place_value_part(block, slot % kSlotBlock, i, hidden ? set1(0.0f) : v0, n);
  place_value_part(block, slot % kSlotBlock, h.head_dim / 2 + i, hidden ? set1(0.0f) : v1, n);
}
