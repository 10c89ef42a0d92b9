// A block's shared memory on the CPU: every access is checked.
//
// Of each byte pair it is known who wrote it last, who read it last, and when. `Moment` counts the
// barriers that a thread has passed: of its block, and of its warp. Two accesses of different threads,
// one of them a write, are a race when no barrier lies between: none of the block's, and none of the
// warp's where it is one warp. A byte that nobody wrote in this block is NaN, and reading it is refused.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

namespace refimpl::cuda::emulated {

// Ends the program: what a kernel did.
[[noreturn, gnu::format(printf, 1, 2)]] inline void refuse(const char* format, ...) {
  std::printf("the kernel is wrong: ");
  va_list values;
  va_start(values, format);
  std::vprintf(format, values);
  va_end(values);
  std::printf("\n");
  std::fflush(stdout);
  std::_Exit(1);
}

struct Moment {
  std::uint32_t block = 0, warp = 0;
};

class SharedMemory {
 public:
  // For a new block: so many bytes of NaN, which nobody has written.
  void start(std::size_t bytes) {
    bytes_ = std::make_unique<std::uint16_t[]>(bytes / kGrain);  // of this size, for AddressSanitizer
    for (std::size_t i = 0; i < bytes / kGrain; ++i) bytes_[i] = 0xffff;
    grains_.assign(bytes / kGrain, {});
  }
  const void* read(std::size_t offset, std::size_t bytes, unsigned thread, Moment now) {
    for (std::size_t i = offset / kGrain; i < (offset + bytes) / kGrain; ++i) {
      Grain& g = grains_[i];
      if (g.write.thread == kNobody) refuse("shared memory at %zu is read, and nobody wrote it", i * kGrain);
      if (races(g.write, thread, now))
        refuse("shared memory at %zu is read by thread %u and written by another with no barrier between", i * kGrain, thread);
      const bool others = g.read.thread != kNobody && g.read.moment.block == now.block && g.read.thread != static_cast<int>(thread);
      const bool one_warp = others && g.read.warp == static_cast<int>(thread / 32);
      g.read = {others ? kSeveral : static_cast<int>(thread), others && !one_warp ? kSeveral : static_cast<int>(thread / 32), now};
    }
    return bytes_.get() + offset / kGrain;
  }
  void* write(std::size_t offset, std::size_t bytes, unsigned thread, Moment now) {
    for (std::size_t i = offset / kGrain; i < (offset + bytes) / kGrain; ++i) {
      Grain& g = grains_[i];
      for (const Access* before : {&g.write, &g.read})
        if (races(*before, thread, now))
          refuse("shared memory at %zu is written by thread %u and used by another with no barrier between", i * kGrain, thread);
      g.write = {static_cast<int>(thread), static_cast<int>(thread / 32), now};
    }
    return bytes_.get() + offset / kGrain;
  }

 private:
  static constexpr std::size_t kGrain = 2;  // bytes
  static constexpr int kNobody = -1, kSeveral = -2;
  struct Access {
    int thread = kNobody, warp = kNobody;  // kSeveral: of one warp, or of several
    Moment moment{};
  };
  struct Grain {
    Access write, read;
  };
  static bool races(const Access& before, unsigned thread, Moment now) {
    if (before.thread == kNobody || before.thread == static_cast<int>(thread) || before.moment.block != now.block) return false;
    return before.warp != static_cast<int>(thread / 32) || before.moment.warp == now.warp;
  }

  std::unique_ptr<std::uint16_t[]> bytes_;
  std::vector<Grain> grains_;
};

}  // namespace refimpl::cuda::emulated
