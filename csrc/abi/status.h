// What every function of the C interface shares: exceptions become a status and a text, structs are
// of the size that this library knows.
#pragma once

#include <cstddef>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "modernbert.h"

namespace refimpl {

// The caller's callback said stop.
struct Interrupted {};

// No driver, no such device, or one that there is no code for.
struct NoDevice : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// A device has no memory for what the text says.
class DeviceFull : public std::bad_alloc {
 public:
  explicit DeviceFull(std::string text) : text_("out of memory: " + std::move(text)) {}
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  std::string text_;
};

// Status and text of the exception that is being handled.
int told() noexcept;

template <class F>
int guarded(F f) noexcept {
  try {
    f();
    return MODERNBERT_OK;
  } catch (...) {
    return told();
  }
}

[[noreturn]] inline void refuse(const std::string& message) { throw std::invalid_argument(message); }

template <class T>
T& not_null(T* pointer, const char* name) {
  if (!pointer) refuse(std::string(name) + " is NULL");
  return *pointer;
}

// A struct of the caller.
template <class T>
T& sized(T* given, const char* name) {
  if (not_null(given, name).struct_size != sizeof(T))
    refuse(std::string(name) + "->struct_size is " + std::to_string(given->struct_size) + "; this library's is " +
           std::to_string(sizeof(T)));
  return *given;
}

}  // namespace refimpl
