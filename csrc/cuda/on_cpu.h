// The vocabulary of device.h in plain C++: blocks one after the other, a block's threads as fibres.
//
// A thread runs until it waits, and of those that can go on any is next: the order of blocks and of
// threads is drawn from the stream's seed. What a device forbids or leaves undefined ends the program
// with a line that says what: a warp whose lanes are not together, a barrier that some threads never
// reach, shared memory beyond its bounds, read before anyone wrote it, or used by two threads of which
// one writes with no barrier between (shared_memory.h), an address that is not aligned.
// A copy that is under way is NaN until its thread has waited for it.
// Not shown: speed, memory traffic, registers, and what a device does with races between blocks.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "cuda/device.h"
#include "cuda/fibres.h"
#include "cuda/shared_memory.h"

#define REFIMPL_KERNEL inline void
#define REFIMPL_DEVICE inline
#define REFIMPL_DEVICE_CALL inline
#define REFIMPL_UNROLL
#define REFIMPL_NO_UNROLL

namespace refimpl::cuda {
namespace emulated {

// The threads of one block at a time, and what they wait for.
class Machine {
 public:
  // Every block of a grid. call(): the kernel.
  template <class Call>
  void run(const Grid& grid, std::uint64_t seed, const Call& call) {
    if (grid.threads == 0 || grid.threads % kWarp || grid.threads > kMostThreads)
      refuse("a block of %u threads: it has to be a multiple of %u, at most %u", grid.threads, kWarp, kMostThreads);
    if (grid.shared_bytes > kMostShared) refuse("%zu bytes of shared memory: at most %zu", grid.shared_bytes, kMostShared);
    if (grid.y > 65535) refuse("%u blocks in y: at most 65535", grid.y);
    state_ = seed, grid_ = grid;
    call_ = [](const void* c) { (*static_cast<const Call*>(c))(); }, closure_ = &call;
    while (threads_.size() < grid.threads) threads_.push_back(std::make_unique<Fibre>(kStack));
    warps_.resize(grid.threads / kWarp);
    std::vector<std::size_t> blocks(std::size_t{grid.x} * grid.y);
    std::iota(blocks.begin(), blocks.end(), std::size_t{0});
    for (std::size_t i = blocks.size(); i > 1; --i) std::swap(blocks[i - 1], blocks[below(i)]);
    Machine* const outer = std::exchange(running, this);
    for (const std::size_t block : blocks) run_block(static_cast<unsigned>(block % grid.x), static_cast<unsigned>(block / grid.x));
    running = outer;
  }

  void barrier() {
    waits_[now_] = "barrier";
    if (++at_barrier_ == grid_.threads) {
      at_barrier_ = 0, ++moment_.block;
      for (unsigned t = 0; t < grid_.threads; ++t) release(t);
    }
    next();
  }

  // f(in, out) with what each lane of this warp brought, once all 32 are here; then each has its own `out`.
  template <class Out, class In, class F>
  Out together(const char* what, const In& in, F f) {
    Warp& w = warps_[now_ / kWarp];
    Out out{};
    if (w.arrived && w.what != what && std::strcmp(w.what, what)) refuse("a lane of a warp is at %s, another at %s", what, w.what);
    w.what = waits_[now_] = what, w.in[now_ % kWarp] = &in, w.out[now_ % kWarp] = &out;
    if (++w.arrived == kWarp) {
      f([&](unsigned l) -> const In& { return *static_cast<const In*>(w.in[l]); },
        [&](unsigned l) -> Out& { return *static_cast<Out*>(w.out[l]); });
      w.arrived = 0;
      for (unsigned l = 0; l < kWarp; ++l) release(now_ / kWarp * kWarp + l);
    }
    next();
    return out;
  }
  void warp_barrier() {
    together<char>("warp_barrier", '\0', [](auto, auto) {});
    // Each lane counts for itself; all have the same count when they go on.
    ++moments_[now_];
  }

  // -- copies of 16 bytes that are under way: what they write is poison until they are waited for --
  void copy(std::size_t offset, const void* from, unsigned bytes) {
    std::memset(shared_.write(offset, 16, now_, moment()), 0xff, 16);
    copies_[now_].push_back({offset, from, bytes});
  }
  void commit() { copies_[now_].push_back({kGroupEnd, nullptr, 0}); }
  void wait(std::size_t groups_left) {
    std::deque<Copy>& mine = copies_[now_];
    std::size_t groups = 0;
    for (const Copy& c : mine) groups += c.offset == kGroupEnd;
    for (; groups > groups_left; mine.pop_front()) {
      const Copy& c = mine.front();
      if (c.offset == kGroupEnd) {
        --groups;
        continue;
      }
      unsigned char filled[16] = {};
      std::memcpy(filled, c.from, c.bytes);
      std::memcpy(shared_.write(c.offset, 16, now_, moment()), filled, 16);
    }
  }

  Moment moment() const { return {moment_.block, moments_[now_]}; }
  unsigned thread() const { return now_; }
  unsigned block_x() const { return x_; }
  unsigned block_y() const { return y_; }
  const Grid& grid() const { return grid_; }
  SharedMemory& shared_memory() { return shared_; }

  static inline thread_local Machine* running = nullptr;
  static Machine& of_this_thread() {
    static thread_local Machine machine;
    return machine;
  }

 private:
  static constexpr std::size_t kStack = 64 * 1024;  // AddressSanitizer makes frames several times as large
  struct Warp {
    unsigned arrived = 0;
    const char* what = nullptr;
    const void* in[kWarp];
    void* out[kWarp];
  };

  static constexpr std::size_t kGroupEnd = ~std::size_t{0};
  struct Copy {
    std::size_t offset;
    const void* from;
    unsigned bytes;  // zeros after them
  };

  std::uint64_t bits() {  // splitmix64
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  std::size_t below(std::size_t n) { return static_cast<std::size_t>((bits() >> 32) * n >> 32); }

  void run_block(unsigned x, unsigned y) {
    x_ = x, y_ = y, left_ = grid_.threads, at_barrier_ = 0, moment_ = {};
    waits_.assign(grid_.threads, nullptr), moments_.assign(grid_.threads, 0);
    for (Warp& w : warps_) w.arrived = 0;
    copies_.assign(grid_.threads, {});
    shared_.start(grid_.shared_bytes);
    ready_.clear();
    for (unsigned t = 0; t < grid_.threads; ++t) threads_[t]->start(entry), ready_.push_back(t);
    now_ = take();
    caller_.switch_to(*threads_[now_]);
    if (left_) refuse("%u of %u threads never end, one of them waits at %s", left_, grid_.threads, first_waiting());
  }

  static void entry() {
    Machine& m = *running;
    m.threads_[m.now_]->arrived(m.caller_);
    m.call_(m.closure_);
    m.end();
  }

  void release(unsigned t) { waits_[t] = nullptr, ready_.push_back(t); }
  unsigned take() {
    std::swap(ready_[below(ready_.size())], ready_.back());
    const unsigned t = ready_.back();
    ready_.pop_back();
    return t;
  }
  // Leaves the running thread, which waits, for one that can go on.
  void next() {
    Fibre& from = *threads_[now_];
    if (ready_.empty()) return from.switch_to(caller_);
    const unsigned to = take();
    if (to == now_) return;
    now_ = to;
    from.switch_to(*threads_[to]);
  }
  void end() {
    Fibre& from = *threads_[now_];
    if (!copies_[now_].empty()) refuse("thread %u ends before its copies do", now_);
    --left_;
    if (ready_.empty()) return from.switch_to(caller_, true);
    now_ = take();
    from.switch_to(*threads_[now_], true);
  }
  const char* first_waiting() const {
    for (const char* what : waits_)
      if (what) return what;
    return "nothing";
  }

  Grid grid_{};
  std::uint64_t state_ = 0;
  void (*call_)(const void*) = nullptr;
  const void* closure_ = nullptr;
  Fibre caller_;
  std::vector<std::unique_ptr<Fibre>> threads_;
  std::vector<const char*> waits_;       // of each thread: what for, or null
  std::vector<std::uint32_t> moments_;   // of each thread: barriers of its warp so far
  std::vector<std::deque<Copy>> copies_;  // of each thread
  std::vector<Warp> warps_;
  std::vector<unsigned> ready_;
  SharedMemory shared_;
  Moment moment_{};
  unsigned now_ = 0, x_ = 0, y_ = 0, left_ = 0, at_barrier_ = 0;
};

inline Machine& machine() { return *Machine::running; }

// Where devices have memory of their own (runtime_on_cpu.h): kernels may touch no other, and the host not this.
struct Apart {
  const void *begin = nullptr, *end = nullptr;
  void (*open)() = nullptr, (*close)() = nullptr;  // around every launch
};
inline Apart apart;

inline void must_be_of_a_device(const void* p) {
  if (apart.begin && !(p >= apart.begin && p < apart.end)) refuse("a kernel touches memory of the host");
}

template <class T>
void must_be_aligned(const T* p) {
  must_be_of_a_device(p);
  if (reinterpret_cast<std::uintptr_t>(p) % alignof(T))
    refuse("an access of %zu bytes at an address that is no multiple of %zu", sizeof(T), alignof(T));
}

}  // namespace emulated

inline unsigned thread() { return emulated::machine().thread(); }
inline unsigned lane() { return thread() % kWarp; }
inline unsigned warp() { return thread() / kWarp; }
inline unsigned block_x() { return emulated::machine().block_x(); }
inline unsigned block_y() { return emulated::machine().block_y(); }
inline unsigned blocks_x() { return emulated::machine().grid().x; }

inline void barrier() { emulated::machine().barrier(); }
inline void warp_barrier() { emulated::machine().warp_barrier(); }

template <class T>
T shuffle_xor(T x, unsigned bits) {
  return emulated::machine().together<T>("shuffle_xor", x, [&](auto in, auto out) {
    for (unsigned l = 0; l < kWarp; ++l) out(l) = in(l ^ bits);
  });
}
inline bool any_lane(bool b) {
  return emulated::machine().together<bool>("any_lane", b, [&](auto in, auto out) {
    bool any = false;
    for (unsigned l = 0; l < kWarp; ++l) any = any || in(l);
    for (unsigned l = 0; l < kWarp; ++l) out(l) = any;
  });
}

template <class T>
T load_global(const T* p) {
  emulated::must_be_aligned(p);
  return *p;
}
template <class T>
void store_global(T* p, T x) {
  emulated::must_be_aligned(p);
  *p = x;
}

template <class T>
struct Shared {
  static_assert(sizeof(T) % 2 == 0, "accesses are known of in pairs of bytes");
  std::size_t offset;
  unsigned count;
  T load(unsigned i) const {
    emulated::Machine& m = emulated::machine();
    T x;
    std::memcpy(&x, m.shared_memory().read(place(i), sizeof(T), m.thread(), m.moment()), sizeof(T));
    return x;
  }
  void store(unsigned i, T x) const {
    emulated::Machine& m = emulated::machine();
    std::memcpy(m.shared_memory().write(place(i), sizeof(T), m.thread(), m.moment()), &x, sizeof(T));
  }
  // Where `elements` from i on begin.
  std::size_t place(unsigned i, unsigned elements = 1) const {
    if (i >= count || count - i < elements) emulated::refuse("element %u of %u in shared memory", i + elements - 1, count);
    const std::size_t at = offset + i * sizeof(T);
    if (at % (elements * sizeof(T))) emulated::refuse("%zu bytes at %zu of shared memory", elements * sizeof(T), at);
    return at;
  }
};

template <class T>
Shared<T> shared(std::size_t offset, unsigned count) {
  const std::size_t bytes = emulated::machine().grid().shared_bytes;
  if (offset % sizeof(T)) emulated::refuse("shared memory at %zu for elements of %zu bytes", offset, sizeof(T));
  if (offset > bytes || (bytes - offset) / sizeof(T) < count)
    emulated::refuse("%u elements at %zu of %zu bytes of shared memory", count, offset, bytes);
  return {offset, count};
}

template <class T>
void copy_async(const Shared<T>& s, unsigned i, const T* p, unsigned bytes) {
  if (bytes > 16) emulated::refuse("a copy of %u bytes: at most 16", bytes);
  if (bytes) emulated::must_be_of_a_device(p);
  if (reinterpret_cast<std::uintptr_t>(p) % 16) emulated::refuse("a copy of 16 bytes from an address that is no multiple of them");
  emulated::machine().copy(s.place(i, 16 / sizeof(T)), p, bytes);
}
inline void commit_copies() { emulated::machine().commit(); }
template <int N>
void wait_copies() {
  emulated::machine().wait(N);
}

namespace emulated {

// ldmatrix: the rows are read by the lanes that bring them.
template <bool kTurned>
Matrices load_matrices(const Shared<bf16>& s, unsigned i) {
  Machine& m = machine();
  const unsigned first = m.thread() / kWarp * kWarp;
  return m.together<Matrices>(kTurned ? "load_matrices_turned" : "load_matrices", s.place(i, 8), [&](auto in, auto out) {
    std::uint16_t x[4][8][8];
    for (unsigned l = 0; l < kWarp; ++l) std::memcpy(x[l / 8][l % 8], m.shared_memory().read(in(l), 16, first + l, m.moment()), 16);
    for (unsigned l = 0; l < kWarp; ++l)
      for (unsigned k = 0; k < 4; ++k) {
        const unsigned a = l / 4, b = 2 * (l % 4);
        const std::uint32_t low = kTurned ? x[k][b][a] : x[k][a][b], high = kTurned ? x[k][b + 1][a] : x[k][a][b + 1];
        out(l).pair[k] = low | high << 16;
      }
  });
}

// Eight sums as tensor cores are known to make them, on the careless side: sums[c] += a[k] b[k][c] over eight k. The
// addends and what there was are cut, not rounded, to 24 bits below the largest one's first, and so is their sum to a
// float32.
inline void add_products(float* sums, const float* a, const float (*b)[8]) {
  double term[9][8], sum[8], largest[8];
  for (int c = 0; c < 8; ++c) term[8][c] = sum[c] = sums[c], largest[c] = std::fabs(sum[c]);
  for (int k = 0; k < 8; ++k)
    for (int c = 0; c < 8; ++c) {
      const double product = static_cast<double>(a[k]) * static_cast<double>(b[k][c]), size = std::fabs(product);
      term[k][c] = product, sum[c] += product, largest[c] = largest[c] < size ? size : largest[c];
    }
  bool plain[8], any_plain = false;  // zeros, or an Inf or NaN
  double unit[8], per_unit[8];
  for (int c = 0; c < 8; ++c) {
    plain[c] = largest[c] == 0 || !(std::fabs(sum[c]) < HUGE_VAL), any_plain |= plain[c];
    std::uint64_t exponent;  // of the largest, and 1023
    std::memcpy(&exponent, &largest[c], sizeof exponent);
    exponent >>= 52;
    const std::uint64_t biased = (exponent < 1023 - 125 ? 1023 - 125 : exponent) - 24;  // of 2^-149 at least
    const std::uint64_t one = biased << 52, inverse = (2046 - biased) << 52;
    std::memcpy(&unit[c], &one, sizeof one), std::memcpy(&per_unit[c], &inverse, sizeof inverse);
  }
  if (any_plain)
    for (int c = 0; c < 8; ++c)
      for (int k = 0; plain[c] && k < 9; ++k) term[k][c] = 0;
  std::int32_t units[8] = {};  // each addend has less than 2^25
  for (int k = 0; k < 9; ++k)
    for (int c = 0; c < 8; ++c) units[c] += static_cast<std::int32_t>(term[k][c] * per_unit[c]);
  for (int c = 0; c < 8; ++c) {
    double kept = units[c];
    std::uint64_t bits;
    std::memcpy(&bits, &kept, sizeof bits);
    bits &= ~((std::uint64_t{1} << 29) - 1);  // that a float32 has no room for
    std::memcpy(&kept, &bits, sizeof bits);
    sums[c] = static_cast<float>(plain[c] ? sum[c] : kept * unit[c]);
  }
}

}  // namespace emulated

inline Matrices load_matrices(const Shared<bf16>& s, unsigned i) { return emulated::load_matrices<false>(s, i); }
inline Matrices load_matrices_turned(const Shared<bf16>& s, unsigned i) { return emulated::load_matrices<true>(s, i); }

inline void multiply(FragmentD& d, const FragmentA& a, const FragmentB& b) {
  struct Brought {
    const FragmentD* d;
    const FragmentA* a;
    const FragmentB* b;
  };
  d = emulated::machine().together<FragmentD>("multiply", Brought{&d, &a, &b}, [](auto in, auto out) {
    const auto half = [](std::uint32_t pair, unsigned which) { return to_float(bf16{static_cast<std::uint16_t>(pair >> 16 * which)}); };
    float x[16][16], y[16][8], sums[16][8];
    for (unsigned l = 0; l < kWarp; ++l)
      for (unsigned e = 0; e < 8; ++e) {  // a[pair]: its row 8 further when the pair is odd, its column when it is 2 or 3
        const unsigned pair = e / 2, column = 2 * (l % 4) + e % 2;
        x[l / 4 + 8 * (pair % 2)][column + 8 * (pair / 2)] = half(in(l).a->pair[pair], e % 2);
        if (pair < 2) y[column + 8 * pair][l / 4] = half(in(l).b->pair[pair], e % 2);
        if (e < 4) sums[l / 4 + 8 * pair][column] = in(l).d->x[e];
      }
    for (unsigned row = 0; row < 16; ++row)
      for (unsigned k = 0; k < 16; k += 8) emulated::add_products(sums[row], x[row] + k, y + k);
    for (unsigned l = 0; l < kWarp; ++l)
      for (unsigned e = 0; e < 4; ++e) out(l).x[e] = sums[l / 4 + 8 * (e / 2)][2 * (l % 4) + e % 2];
  });
}

inline float exp(float x) { return std::exp(x); }
inline float exp2(float x) { return std::exp2(x); }
inline float erf(float x) { return std::erf(x); }
inline float tanh(float x) { return std::tanh(x); }
inline float sqrt(float x) { return std::sqrt(x); }
inline double sqrt(double x) { return std::sqrt(x); }
inline float fma(float a, float b, float c) { return std::fma(a, b, c); }

inline bool is_finite(float x) { return std::isfinite(x); }

inline bf16 round_bf16(float x) { return to_bf16(x); }
inline float widened(bf16 x) { return to_float(x); }
inline float widened_half(std::uint16_t x) {
  float y;
  widen(Tensor{&x, Storage::float16}, 0, 1, &y);
  return y;
}

// What the order of blocks and threads is drawn from.
using Stream = std::uint64_t;

namespace emulated {
// What is started while a graph is made, kept instead of done.
using Kept = std::vector<std::function<void(Stream)>>;
inline thread_local Kept* kept = nullptr;

inline void now_or_kept(Stream stream, std::function<void(Stream)> f) {
  if (kept) kept->push_back(std::move(f));
  else f(stream);
}
}  // namespace emulated

template <class Arguments>
int launch(void (*kernel)(Arguments), const Grid& grid, Stream stream, const Arguments& arguments) {
  emulated::now_or_kept(stream, [kernel, grid, arguments](Stream order) {
    if (emulated::apart.open) emulated::apart.open();
    emulated::Machine::of_this_thread().run(grid, order, [&] { kernel(arguments); });
    if (emulated::apart.close) emulated::apart.close();
  });
  return 0;
}

}  // namespace refimpl::cuda
