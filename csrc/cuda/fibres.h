// Fibres: functions that stop halfway, each on a stack of its own, so that one processor can be the
// threads of a block. One runs at a time; `switch_to` goes from the running one to another.
//
// On x86-64 a switch is 16 instructions; elsewhere ucontext, which asks the system each time. A stack
// ends at a page that nobody may touch. AddressSanitizer is told of every switch, and of stacks that go: what it
// forbade of them would else be forbidden of whatever is mapped there next.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <new>

#if !defined(__x86_64__) && !defined(REFIMPL_UCONTEXT)
#define REFIMPL_UCONTEXT
#endif
#if defined(REFIMPL_UCONTEXT)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#define REFIMPL_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define REFIMPL_ASAN
#endif
#endif
#if defined(REFIMPL_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace refimpl::cuda::emulated {

#if !defined(REFIMPL_UCONTEXT)
// Pushes what a function has to leave as it was, keeps the stack in *from, and does the reverse on `to`.
__attribute__((naked, noinline)) inline void exchange_stacks(void** /*from*/, void* /*to*/) {
  asm("pushq %rbp\n\tpushq %rbx\n\tpushq %r12\n\tpushq %r13\n\tpushq %r14\n\tpushq %r15\n\t"
      "movq %rsp, (%rdi)\n\tmovq %rsi, %rsp\n\t"
      "popq %r15\n\tpopq %r14\n\tpopq %r13\n\tpopq %r12\n\tpopq %rbx\n\tpopq %rbp\n\tret");
}
#endif

class Fibre {
 public:
  Fibre() = default;  // that of whoever calls
  explicit Fibre(std::size_t stack_bytes) {
    page_ = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    bytes_ = (stack_bytes + page_ - 1) / page_ * page_ + page_;
    void* map = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) throw std::bad_alloc();
    stack_ = static_cast<unsigned char*>(map);
    mprotect(stack_, page_, PROT_NONE);
#if defined(REFIMPL_ASAN)
    bottom_ = stack_ + page_, size_ = bytes_ - page_;
#endif
  }
  Fibre(const Fibre&) = delete;
  Fibre& operator=(const Fibre&) = delete;
  ~Fibre() {
    if (!stack_) return;
#if defined(REFIMPL_ASAN)
    __asan_unpoison_memory_region(stack_, bytes_);
#endif
    munmap(stack_, bytes_);
  }

  // The next switch to this fibre calls entry(), which must not return.
  void start(void (*entry)()) {
#if defined(REFIMPL_UCONTEXT)
    getcontext(&at_);
    at_.uc_stack.ss_sp = stack_ + page_, at_.uc_stack.ss_size = bytes_ - page_, at_.uc_link = nullptr;
    makecontext(&at_, entry, 0);
#else
    auto* top = reinterpret_cast<std::uintptr_t*>(stack_ + bytes_);
    *--top = 0;  // where entry() would return to; its frame is aligned as after a call
    *--top = reinterpret_cast<std::uintptr_t>(entry);
    for (int saved = 0; saved < 6; ++saved) *--top = 0;
    at_ = top;
#endif
  }

  // Leaves this fibre, which runs, for another; comes back when somebody switches to this one. ended: nobody will.
  void switch_to(Fibre& other, bool ended = false) {
#if defined(REFIMPL_ASAN)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(ended ? nullptr : &fake, other.bottom_, other.size_);
#endif
#if defined(REFIMPL_UCONTEXT)
    swapcontext(&at_, &other.at_);
#else
    exchange_stacks(&at_, other.at_);
#endif
#if defined(REFIMPL_ASAN)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
    (void)ended;
  }

  // The first thing that a started fibre calls. caller: who switched to the first of all, whose stack becomes known.
  void arrived([[maybe_unused]] Fibre& caller) {
#if defined(REFIMPL_ASAN)
    const void* bottom = nullptr;
    std::size_t size = 0;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
    if (!caller.size_) caller.bottom_ = bottom, caller.size_ = size;
#endif
  }

 private:
  unsigned char* stack_ = nullptr;
  std::size_t bytes_ = 0, page_ = 0;
#if defined(REFIMPL_UCONTEXT)
  ucontext_t at_{};
#else
  void* at_ = nullptr;
#endif
#if defined(REFIMPL_ASAN)
  const void* bottom_ = nullptr;
  std::size_t size_ = 0;
#endif
};

}  // namespace refimpl::cuda::emulated
