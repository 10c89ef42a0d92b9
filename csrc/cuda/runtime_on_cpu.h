// The vocabulary of runtime.h on this processor, which stands in for as many devices as `stand_in` says.
//
// Memory of a device is full of NaN at first, ends where a page begins that nobody may touch, and is
// closed to the host but while a kernel runs or a copy is made: a pointer of one side that reaches the
// other ends the program. Kernels run when they are launched; what a stream would do later is not shown.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <new>

#include "cuda/runtime.h"

namespace refimpl::cuda {
namespace emulated {

// The devices, as tests want them.
struct StandIn {
  int devices = 1, major = 9, minor = 0;
  bool driver = true;
  std::size_t memory = std::size_t{64} << 30;
};
inline StandIn stand_in;
// What the orders of blocks and threads are drawn from, beside the stream; graphs that there are, and their launches.
inline std::atomic<Stream> order{0};
inline std::atomic<long> graphs{0}, graph_launches{0};
inline std::atomic<Stream> last_stream{0};  // that of the last pass, plus its launches

// All memory of all devices: pieces of one range of addresses, with a page between that nobody may touch.
class Pages {
 public:
  static Pages& all() {
    static Pages pages;
    return pages;
  }
  std::byte* take(std::size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const std::size_t room = (bytes + page_ - 1) / page_ * page_;
    if (used_ > stand_in.memory || room > stand_in.memory - used_) return nullptr;
    std::byte* at = begin_ + page_;
    for (const auto& [data, piece] : pieces_) {
      if (static_cast<std::size_t>(piece.at - at) >= room + page_) break;
      at = piece.at + piece.room + page_;
    }
    if (static_cast<std::size_t>(begin_ + kRange - at) < room + page_) return nullptr;
    mprotect(at, room, PROT_READ | PROT_WRITE);
    std::memset(at, 0xff, room);
    if (!open_) mprotect(at, room, PROT_NONE);
    used_ += room, most_ = most_ < used_ ? used_ : most_;
    // A kernel that runs past the end of `bytes` meets the page behind it.
    std::byte* data = at + (room - bytes) / kAlignment * kAlignment;
    pieces_[data] = {at, room, bytes};
    return data;
  }
  void give(std::byte* data) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const Piece piece = pieces_.at(data);
    madvise(piece.at, piece.room, MADV_DONTNEED), mprotect(piece.at, piece.room, PROT_NONE);
    used_ -= piece.room, pieces_.erase(data);
  }
  // Whoever runs kernels or copies.
  void open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (open_++ == 0) protect(PROT_READ | PROT_WRITE);
  }
  void close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (--open_ == 0) protect(PROT_NONE);
  }
  bool has(const void* p, std::size_t bytes) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto next = pieces_.upper_bound(static_cast<std::byte*>(const_cast<void*>(p)));
    if (next == pieces_.begin()) return false;
    const auto piece = std::prev(next);
    const std::size_t at = static_cast<std::size_t>(static_cast<const std::byte*>(p) - piece->first);
    return at <= piece->second.bytes && bytes <= piece->second.bytes - at;
  }
  // Bytes in use, and the most that were since `forget_most`.
  std::size_t used() const { return used_; }
  std::size_t most() const { return most_; }
  void forget_most() { most_ = used_; }

 private:
  static constexpr std::size_t kAlignment = 256, kRange = std::size_t{256} << 30;
  struct Piece {
    std::byte* at;
    std::size_t room, bytes;
  };
  Pages() {
    void* map = mmap(nullptr, kRange, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) throw std::bad_alloc();
    begin_ = static_cast<std::byte*>(map);
    apart = {begin_, begin_ + kRange, [] { all().open(); }, [] { all().close(); }};
  }
  void protect(int how) {
    for (const auto& [data, piece] : pieces_) mprotect(piece.at, piece.room, how);
  }
  const std::size_t page_ = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  std::byte* begin_ = nullptr;
  mutable std::mutex mutex_;
  std::map<std::byte*, Piece> pieces_;
  std::size_t used_ = 0, most_ = 0;
  unsigned open_ = 0;
};
struct Opened {
  Opened() { Pages::all().open(); }
  ~Opened() { Pages::all().close(); }
  Opened(const Opened&) = delete;
};

}  // namespace emulated

inline const char* architectures() { return "this processor, in place of a device"; }

inline int devices() {
  if (!emulated::stand_in.driver) throw NoDevice("no CUDA driver that this library can use: this processor was told to have none");
  return emulated::stand_in.devices;
}

inline DeviceFacts facts_of(int device) {
  const int count = devices();
  if (device < 0 || device >= count)
    throw NoDevice("device " + std::to_string(device) + " is not there: there are " + std::to_string(count));
  const std::size_t memory = emulated::stand_in.memory, used = emulated::Pages::all().used();
  return {"this processor", emulated::stand_in.major, emulated::stand_in.minor, memory, memory - (used < memory ? used : memory), 1};
}

inline void check_runs(int device) {
  const DeviceFacts facts = facts_of(device);
  if (facts.major < 8)
    throw NoDevice("device " + std::to_string(device) + ", " + facts.name + ", has compute capability " +
                   std::to_string(facts.major) + "." + std::to_string(facts.minor) + "; 8.0 or later is needed");
}

struct OnDevice {
  explicit OnDevice(int) {}
};

class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(int device, std::size_t bytes) : bytes_(bytes) {
    if (!bytes) return;
    data_ = emulated::Pages::all().take(bytes);
    if (!data_) {
      const DeviceFacts facts = facts_of(device);
      throw DeviceFull(std::to_string(bytes) + " bytes of device " + std::to_string(device) + "; " + std::to_string(facts.free) +
                       " of its " + std::to_string(facts.memory) + " are free");
    }
  }
  DeviceMemory(DeviceMemory&& other) noexcept { swap(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~DeviceMemory() {
    if (data_) emulated::Pages::all().give(data_);
  }
  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  void swap(DeviceMemory& other) noexcept { std::swap(data_, other.data_), std::swap(bytes_, other.bytes_); }
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

class HostMemory {
 public:
  HostMemory() = default;
  explicit HostMemory(std::size_t bytes) : data_(new std::byte[bytes]), bytes_(bytes) {}
  std::byte* data() const { return data_.get(); }
  std::size_t bytes() const { return bytes_; }

 private:
  std::unique_ptr<std::byte[]> data_;
  std::size_t bytes_ = 0;
};

// The order of blocks and threads, drawn anew for each stream.
class OwnStream {
 public:
  explicit OwnStream(int) {
    static std::atomic<Stream> streams{0};
    stream_ = ++streams << 32;
  }
  Stream get() const { return stream_ ^ emulated::order; }

 private:
  Stream stream_;
};

struct Event {
  explicit Event(int) {}
  void record(Stream stream) { emulated::last_stream = stream; }
  void stream_waits(Stream) const {}
  void finish() const {}
};

inline void copied(void* to, const void* from, std::size_t bytes, bool to_own, bool from_own) {
  if (!bytes) return;
  if (emulated::kept) emulated::refuse("a copy of %zu bytes while a graph is made", bytes);
  emulated::Pages& pages = emulated::Pages::all();
  if (pages.has(to, bytes) != to_own || pages.has(from, bytes) != from_own)
    emulated::refuse("a copy of %zu bytes between other memory than it says", bytes);
  const emulated::Opened opened;
  std::memcpy(to, from, bytes);
}
inline void to_device(Stream, void* to, const void* from, std::size_t bytes) { copied(to, from, bytes, true, false); }
inline void to_host(Stream, void* to, const void* from, std::size_t bytes) { copied(to, from, bytes, false, true); }
inline void on_device(Stream, void* to, const void* from, std::size_t bytes) { copied(to, from, bytes, true, true); }
inline void zero(Stream, void* p, std::size_t bytes) {
  if (!bytes) return;
  if (!emulated::Pages::all().has(p, bytes)) emulated::refuse("zeros into memory that is no device's");
  emulated::now_or_kept(0, [p, bytes](Stream) {
    const emulated::Opened opened;
    std::memset(p, 0, bytes);
  });
}
inline void finish(Stream) {
  if (emulated::kept) emulated::refuse("a wait while a graph is made");
}
inline Stream turn(Stream& stream) { return stream++; }
inline Stream stream_of(std::uintptr_t number) { return number; }
inline void check_pointer(const void* p, int, const char* name) {
  if (!emulated::Pages::all().has(p, 1)) refuse(std::string(name) + " is no memory of a device");
}
inline void started(int) {}

class Graph {
 public:
  template <class F>
  Graph(Stream, const F& f) {
    struct Keeping {
      explicit Keeping(emulated::Kept& to) { emulated::kept = &to; }
      ~Keeping() { emulated::kept = nullptr; }
    } const keeping(kept_);
    f();
    ++emulated::graphs;
  }
  Graph(const Graph&) = delete;
  ~Graph() { --emulated::graphs; }
  void launch(Stream& stream) const {
    ++emulated::graph_launches;
    for (const auto& f : kept_) f(stream++);
  }

 private:
  emulated::Kept kept_;
};

}  // namespace refimpl::cuda
