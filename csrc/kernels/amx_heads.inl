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

// Components i .. i + n and head_dim / 2 further of tokens' keys and values, one row after the other; end() after the
// last of some. Where head_dim is whole tiles, up to 16 keys of a tile wait for one another and are turned together.
struct KeyRows {
  __m512i waiting[kTile] = {};  // by place in the tile: pairs of the first half, then of the second
  unsigned places = 0;          // that wait
  std::size_t slot = 0;         // of the tile's first place

  REFIMPL_INLINE void place(const Heads& h, std::size_t token, std::size_t head, std::size_t i, f32 v0, f32 v1, int n) {
    if (n != f32::lanes || h.head_dim % kTileDepth) return place_key(h, token, head, i, v0, v1, n);
    const std::size_t at = h.slot[token];
    if (at / kTile * kTile != slot) end(h, head, i);
    slot = at / kTile * kTile, places |= 1u << at % kTile;
    waiting[at % kTile] = _mm512_inserti64x4(_mm512_castsi256_si512(narrow(v0)), narrow(v1), 1);
  }
  void end(const Heads& h, std::size_t head, std::size_t i) {
    if (!places) return;
    char* block = block_of(h, h.keys, head, slot);
    char* first = reinterpret_cast<char*>(key_at(block, slot % kSlotBlock, i));
    char* second = reinterpret_cast<char*>(key_at(block, slot % kSlotBlock, h.head_dim / 2 + i));
    __m512i pairs[kTile];
    transpose(waiting, pairs);
    for (std::size_t r = 0; r < kTile / 2; ++r) {
      _mm512_mask_storeu_epi32(first + r * kTileLine, static_cast<__mmask16>(places), pairs[r]);
      _mm512_mask_storeu_epi32(second + r * kTileLine, static_cast<__mmask16>(places), pairs[kTile / 2 + r]);
    }
    places = 0;
  }
};

// A value in an even slot waits for the next one, with which it shares its lines.
struct ValueRows {
  __m512i before[2] = {};  // of both halves, each number in the lower half of 32 bits
  std::size_t slot = 0;
  bool waits = false;

  REFIMPL_INLINE void place(const Heads& h, std::size_t token, std::size_t head, std::size_t i, f32 v0, f32 v1, int n) {
    if (n != f32::lanes || h.head_dim % kTileDepth) return place_value(h, token, head, i, v0, v1, n);
    const std::size_t at = h.slot[token];
    const bool hidden = h.visible && !h.visible[token];
    const __m512i bits0 = _mm512_cvtepu16_epi32(narrow(hidden ? set1(0.0f) : v0));
    const __m512i bits1 = _mm512_cvtepu16_epi32(narrow(hidden ? set1(0.0f) : v1));
    if (waits && at == slot + 1) {
      _mm512_storeu_si512(line(h, head, i), _mm512_or_si512(before[0], _mm512_slli_epi32(bits0, 16)));
      _mm512_storeu_si512(line(h, head, h.head_dim / 2 + i), _mm512_or_si512(before[1], _mm512_slli_epi32(bits1, 16)));
      waits = false;
      return;
    }
    end(h, head, i);
    if (at % 2) return place_value(h, token, head, i, v0, v1, n);
    before[0] = bits0, before[1] = bits1, slot = at, waits = true;
  }
  void end(const Heads& h, std::size_t head, std::size_t i) {
    if (!waits) return;
    _mm512_mask_storeu_epi16(line(h, head, i), 0x55555555u, before[0]);
    _mm512_mask_storeu_epi16(line(h, head, h.head_dim / 2 + i), 0x55555555u, before[1]);
    waits = false;
  }

 private:
  // Of the tile of components i .. i + 16: where the waiting value and the next one stand.
  char* line(const Heads& h, std::size_t head, std::size_t i) const {
    return block_of(h, h.values, head, slot) + i / kTile * kTileBytes + slot % kSlotBlock / 2 * kTileLine;
  }
};
