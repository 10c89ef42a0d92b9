// What the host asks of a device: which there are, memory, copies, streams and events.
//
// Under nvcc CUDA's runtime (runtime_on_gpu.h); elsewhere this processor stands in for devices
// (runtime_on_cpu.h), whose memory the host cannot touch but by a copy, and kernels no other. Every
// failure is an exception: NoDevice, DeviceFull, or std::runtime_error for what should not happen.
//
//   architectures()             "sm_80 sm_90a": what this library was compiled for
//   devices()                   how many there are. NoDevice: no driver, or an older one
//   facts_of(device)            NoDevice where there is none of that number
//   check_runs(device)          NoDevice where this library has no code for it
//   OnDevice here(device);      calls of this thread concern that device, until the end of the scope
//   DeviceMemory(device, bytes) a multiple of 256; DeviceFull. HostMemory(bytes): what copies are fast from
//   OwnStream(device), Event(device): record(stream), then stream_waits(stream)
//   to_device to_host on_device (stream, to, from, bytes): copies in the stream's order; zero(stream, p, bytes)
//   finish(stream)              all of it is done
//   turn(stream)                the stream of the next launch
//   Graph(stream, f)            what f starts in the stream, kept instead of done: launches, zeros; launch(stream): all of it
//   started(launch(..))         throws where it was not
#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include "abi/status.h"
#include "cuda/device.h"

namespace refimpl::cuda {

struct DeviceFacts {
  std::string name;
  int major, minor;
  std::size_t memory, free;  // bytes
  int multiprocessors;
};

}  // namespace refimpl::cuda

#if defined(__CUDACC__)
#include "cuda/runtime_on_gpu.h"
#else
#include "cuda/runtime_on_cpu.h"
#endif
