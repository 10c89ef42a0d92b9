// What stands behind the handle of the C interface.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "abi/choice.h"
#include "abi/status.h"
#include "engine/engine.h"

struct modernbert_model {
  std::vector<float> embedding;  // [vocab, hidden] where neither the caller's memory nor the file serves
  refimpl::Choice choice;
  int threads;
  std::unique_ptr<refimpl::Engine> engine;
};

namespace refimpl {

// Beyond any memory; products of sizes below it stay far from overflow.
constexpr std::size_t kMaxElements = std::size_t{1} << 44;

// `given`, where 0 stands for `otherwise`; at most kMaxThreads.
int threads_of(int given, int otherwise);

}  // namespace refimpl
