// Uninitialised memory on cache lines, freed with its owner.
//
// Large pieces are mapped by themselves and given back at once: through malloc, whose thresholds rise
// with what was freed before, a process would keep more and more. What stays and is read in every pass can have huge
// pages, where the system gives them on request.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

namespace refimpl {

class Memory {
 public:
  enum class Pages { usual, huge };

  Memory() = default;
  // Throws std::bad_alloc. Vectors may be read a little past the end of what was asked for.
  explicit Memory(std::size_t bytes, Pages pages = Pages::usual) : bytes_(bytes) {
    if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
    if (mapped()) {
      memory_ = pages == Pages::huge && bytes >= kHuge ? map_huge() : map(room());
    } else {
      memory_ = std::aligned_alloc(kLine, room());
    }
    if (!memory_) throw std::bad_alloc();
  }
  Memory(Memory&& other) noexcept { swap(other); }
  Memory& operator=(Memory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Memory() {
    if (!memory_) return;
    if (mapped())
      munmap(memory_, room());
    else
      std::free(memory_);
  }

  std::byte* data() { return static_cast<std::byte*>(memory_); }
  const std::byte* data() const { return static_cast<const std::byte*>(memory_); }
  float* floats() { return static_cast<float*>(memory_); }
  const float* floats() const { return static_cast<const float*>(memory_); }
  std::size_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t kLine = 64;
  static constexpr std::size_t kMapped = 64 * 1024;
  static constexpr std::size_t kHuge = std::size_t{2} << 20;

  bool mapped() const { return bytes_ >= kMapped; }
  std::size_t room() const { return (bytes_ + 2 * kLine - 1) / kLine * kLine; }
  static void* map(std::size_t bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? nullptr : p;
  }
  // From a multiple of kHuge on; what was mapped before and behind it is given back.
  void* map_huge() const {
    char* const all = static_cast<char*>(map(room() + kHuge));
    if (!all) return nullptr;
    char* const p = all + (kHuge - reinterpret_cast<std::uintptr_t>(all) % kHuge) % kHuge;
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE)), used = (room() + page - 1) / page * page;
    const std::size_t before = static_cast<std::size_t>(p - all), behind = kHuge - before;
    if (before) munmap(all, before);
    if (behind) munmap(p + used, behind);
#if defined(MADV_HUGEPAGE)
    madvise(p, room(), MADV_HUGEPAGE);  // or not
#endif
    return p;
  }
  void swap(Memory& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(bytes_, other.bytes_);
  }

  void* memory_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace refimpl
