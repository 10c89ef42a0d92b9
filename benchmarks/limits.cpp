// What one machine allows: multiply-add rates from registers, bfloat16 tile products from L1, reading
// from memory, by 1 .. threads threads at once. Prints JSON: {"name": {"1": value, ..}, ..}, in
// GFLOP/s and GB/s; the best of some repetitions. Alone in its file: no part of the engine.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// GFLOP/s (or GB/s) of f, which tells its operations (or bytes), on all threads together.
template <class F>
double rate(int threads, F f) {
  constexpr int kRepetitions = 5;
  double best = 0;
  for (int i = 0; i < kRepetitions; ++i) {
    std::vector<std::thread> others;
    std::vector<double> work(static_cast<std::size_t>(threads));
    const double start = seconds();
    for (int t = 1; t < threads; ++t) others.emplace_back([&, t] { work[static_cast<std::size_t>(t)] = f(t); });
    work[0] = f(0);
    for (std::thread& t : others) t.join();
    const double took = seconds() - start;
    double all = 0;
    for (double w : work) all += w;
    best = std::max(best, all / took / 1e9);
  }
  return best;
}

const char* only = nullptr;  // the one rate that is asked for; all without it

template <class F>
void print(const char* name, int threads, F f) {
  static bool any = false;
  if (only && std::strcmp(only, name)) return;
  std::printf("%s\"%s\": {", any ? ", " : "", name);
  any = true;
  for (int t = 1; t <= threads; ++t) std::printf("%s\"%d\": %.2f", t > 1 ? ", " : "", t, rate(t, f));
  std::printf("}");
}

constexpr long kRounds = 8'000'000;

// Twelve chains hide the latency of two multiply-add units.
#define REFIMPL_FMA(name, target_, vector, set, fmadd, lanes)                        \
  __attribute__((target(target_), noinline)) double name(int) {                      \
    vector acc[12];                                                                  \
    for (int i = 0; i < 12; ++i) acc[i] = set(1e-3f * static_cast<float>(i));        \
    const vector x = set(0.999f), y = set(1e-3f);                                    \
    for (long n = 0; n < kRounds; ++n) {                                             \
      _Pragma("GCC unroll 12") for (int i = 0; i < 12; ++i) acc[i] = fmadd(x, acc[i], y); \
      asm volatile("" : : "v"(acc[0]));                                              \
    }                                                                                \
    for (int i = 0; i < 12; ++i) asm volatile("" : : "v"(acc[i]));                   \
    return 2.0 * 12 * lanes * kRounds;                                               \
  }

#if defined(__x86_64__)
REFIMPL_FMA(fma_avx2, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps, 8)
REFIMPL_FMA(fma_avx512, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps, 16)

bool amx_permitted() {
#if defined(__linux__)
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XTILEDATA
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}

// 2 x 2 tiles of sums, operands of random numbers in 8 + 8 tiles of L1 (zeros would run cooler, faster).
__attribute__((target("amx-tile,amx-bf16"), noinline)) double amx_bf16(int thread) {
  struct alignas(64) Config {
    std::uint8_t palette = 1, start = 0, zero[14] = {};
    std::uint16_t columns[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  static const Config config;
  constexpr int kTiles = 8;
  alignas(64) static thread_local std::uint16_t a[kTiles][512], b[kTiles][512];
  std::mt19937 random(static_cast<unsigned>(thread));
  for (auto* half : {&a, &b})
    for (auto& tile : *half)  // bfloat16 of either sign between 0.5 and 2
      for (auto& x : tile) x = static_cast<std::uint16_t>((random() & 0x80ff) | 0x3f00);
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  constexpr long kPasses = 60'000;
  for (long n = 0; n < kPasses; ++n)
    for (int i = 0; i < kTiles; i += 2) {
      _tile_loadd(4, a[i], 64);
      _tile_loadd(5, a[i + 1], 64);
      _tile_loadd(6, b[i], 64);
      _tile_loadd(7, b[i + 1], 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  _tile_release();
  return 2.0 * 16 * 16 * 32 * 4 * (kTiles / 2) * kPasses;
}
#endif

constexpr std::size_t kBytes = std::size_t{256} << 20;  // per thread: more than the caches hold

double read_memory(int thread) {
  static std::vector<std::vector<std::uint64_t>> buffers(64);
  auto& buffer = buffers[static_cast<std::size_t>(thread)];
  if (buffer.empty()) buffer.assign(kBytes / 8, 1);  // the first repetition pays; the best one counts
  std::uint64_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  for (std::size_t i = 0; i < buffer.size(); i += 32)  // four of every 64-byte line's eight words
    for (std::size_t j = 0; j < 32; j += 8) {
      s0 += buffer[i + j], s1 += buffer[i + j + 2], s2 += buffer[i + j + 4], s3 += buffer[i + j + 6];
    }
  volatile std::uint64_t keep = s0 + s1 + s2 + s3;
  (void)keep;
  return static_cast<double>(kBytes);
}

}  // namespace

int main(int count, char** arguments) {
  const int threads = std::clamp(count > 1 ? std::atoi(arguments[1]) : 1, 1, 64);
  if (count > 3) only = arguments[3];
  std::printf("{");
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) print("fma_avx2", threads, fma_avx2);
  if (__builtin_cpu_supports("avx512f")) print("fma_avx512", threads, fma_avx512);
  if (count > 2 && std::atoi(arguments[2]) && amx_permitted()) print("amx_bf16", threads, amx_bf16);
#endif
  print("memory_read", threads, read_memory);
  std::printf("}\n");
}
