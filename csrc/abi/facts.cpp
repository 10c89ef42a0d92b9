// What this build and this machine are.
#include <string>

#include "abi/status.h"
#include "base/cpu.h"
#include "base/pool.h"

using namespace refimpl;

#ifndef REFIMPL_VERSION
#define REFIMPL_VERSION "unknown"
#endif

extern "C" {

const char* modernbert_version(void) { return REFIMPL_VERSION; }

const char* modernbert_compiler(void) {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "gcc " __VERSION__;
#else
  return "unknown";
#endif
}

const char* modernbert_tier_name(size_t i) {
  const char* name = nullptr;
  guarded([&] { name = i < built_tiers().size() ? tier_name(built_tiers()[i]) : nullptr; });
  return name;
}

const char* modernbert_tier_missing(size_t i) {
  thread_local std::string why;
  const char* text = nullptr;
  guarded([&] {
    if (i >= built_tiers().size()) return;
    why = why_unavailable(built_tiers()[i]);
    text = why.c_str();
  });
  return text;
}

int modernbert_default_threads(void) {
  int n = 1;
  guarded([&] { n = default_threads(); });
  return n;
}

void modernbert_give_way(void) { give_way(); }

}  // extern "C"
