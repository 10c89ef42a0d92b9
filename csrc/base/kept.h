// A T between its uses: the first of those that work at the same time gets it with what is in it, others a new one.
// Without a lock, which a fork might leave shut in the child.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

namespace refimpl {

// kMost: bytes (T::held) above which it is not kept but given back.
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
  ~Kept() { take(); }

 private:
  std::unique_ptr<T> take() { return std::unique_ptr<T>(t_.exchange(nullptr)); }
  // The larger of two stays.
  void give(std::unique_ptr<T> t) {
    if (t->held() > kMost) return;
    std::unique_ptr<T> other = take();
    if (other && other->held() > t->held()) t.swap(other);
    std::unique_ptr<T>(t_.exchange(t.release()));
  }

  std::atomic<T*> t_{nullptr};
};

}  // namespace refimpl
