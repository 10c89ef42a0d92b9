// For tests: which devices this processor stands in for, and what was taken of their memory.
#include "cuda/runtime.h"

using namespace refimpl::cuda;

extern "C" {

// devices < 0: no driver. A device's memory in bytes, of all devices together.
__attribute__((visibility("default"))) void modernbert_cuda_stand_in(int devices, int major, int minor, std::size_t memory) {
  emulated::stand_in = {devices < 0 ? 0 : devices, major, minor, devices >= 0, memory};
}
__attribute__((visibility("default"))) std::size_t modernbert_cuda_used() { return emulated::Pages::all().used(); }
// The most that was used since the last call.
__attribute__((visibility("default"))) std::size_t modernbert_cuda_most_used() {
  const std::size_t most = emulated::Pages::all().most();
  emulated::Pages::all().forget_most();
  return most;
}

// All orders of blocks and threads are drawn anew.
__attribute__((visibility("default"))) void modernbert_cuda_order(std::uint64_t seed) { emulated::order = seed; }
__attribute__((visibility("default"))) std::uint64_t modernbert_cuda_last_stream() { return emulated::last_stream; }
__attribute__((visibility("default"))) long modernbert_cuda_graphs() { return emulated::graphs; }
__attribute__((visibility("default"))) long modernbert_cuda_graph_launches() { return emulated::graph_launches; }

}  // extern "C"
