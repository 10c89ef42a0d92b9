// Ts between their uses: whoever needs one gets one that was used before, with what is in it, or a new one.
// Without a lock, which a fork might leave shut in the child.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

namespace refimpl {

// At most kSlots are kept, of kMost bytes (T::held) together; what is beyond is given back.
template <class T, std::size_t kMost>
class Kept {
 public:
  class Use {
   public:
    explicit Use(Kept& kept) : kept_(kept), t_(kept.take()) {
      if (!t_) t_ = std::make_unique<T>();
    }
    Use(const Use&) = delete;
    ~Use() { kept_.give(std::move(t_)); }
    T& operator*() const { return *t_; }
    T* operator->() const { return t_.get(); }

   private:
    Kept& kept_;
    std::unique_ptr<T> t_;
  };

  Kept() = default;
  Kept(const Kept&) = delete;
  ~Kept() {
    while (take()) {
    }
  }

 private:
  static constexpr std::size_t kSlots = 8;

  std::unique_ptr<T> take() {
    for (std::atomic<T*>& slot : slots_)
      if (std::unique_ptr<T> t{slot.exchange(nullptr)}) {
        held_.fetch_sub(t->held());
        return t;
      }
    return nullptr;
  }
  void give(std::unique_ptr<T> t) {
    const std::size_t bytes = t->held();
    if (held_.fetch_add(bytes) + bytes <= kMost)
      for (std::atomic<T*>& slot : slots_) {
        T* empty = nullptr;
        if (slot.compare_exchange_strong(empty, t.get())) return void(t.release());
      }
    held_.fetch_sub(bytes);
  }

  std::atomic<T*> slots_[kSlots] = {};
  std::atomic<std::size_t> held_{0};
};

}  // namespace refimpl
