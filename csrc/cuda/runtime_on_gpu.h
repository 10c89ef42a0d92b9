// The vocabulary of runtime.h by CUDA's runtime.
#pragma once

#include <cuda_runtime.h>

#include "cuda/runtime.h"

#ifndef REFIMPL_CUDA_ARCHITECTURES
#define REFIMPL_CUDA_ARCHITECTURES "unknown"
#endif

namespace refimpl::cuda {

[[noreturn]] inline void told(cudaError_t error, const char* what) {
  const std::string text = std::string(what) + ": " + cudaGetErrorString(error);
  switch (error) {
    case cudaErrorMemoryAllocation: cudaGetLastError(); throw DeviceFull(text);
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInitializationError:
    case cudaErrorInvalidDevice:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorDevicesUnavailable: cudaGetLastError(); throw NoDevice(text);
    default: throw std::runtime_error(text);
  }
}
inline void must(cudaError_t error, const char* what) {
  if (error != cudaSuccess) told(error, what);
}
inline void started(cudaError_t error) { must(error, "a kernel could not be started"); }

inline const char* architectures() { return REFIMPL_CUDA_ARCHITECTURES; }

inline int devices() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorNoDevice) return cudaGetLastError(), 0;
  must(error, "no CUDA driver that this library can use");
  return count;
}

inline DeviceFacts facts_of(int device) {
  const int count = devices();
  if (device < 0 || device >= count)
    throw NoDevice("device " + std::to_string(device) + " is not there: there are " + std::to_string(count));
  cudaDeviceProp p{};
  must(cudaGetDeviceProperties(&p, device), "a device's properties");
  return {p.name, p.major, p.minor, p.totalGlobalMem, 0, p.multiProcessorCount};
}

class OnDevice {
 public:
  explicit OnDevice(int device) {
    must(cudaGetDevice(&before_), "the current device");
    if (device != before_) must(cudaSetDevice(device), "a device could not be chosen");
    changed_ = device != before_;
  }
  ~OnDevice() {
    if (changed_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

template <class = void>
REFIMPL_KERNEL nothing_kernel(int) {}

inline void check_runs(int device) {
  const DeviceFacts facts = facts_of(device);
  if (facts.major < 8)
    throw NoDevice("device " + std::to_string(device) + ", " + facts.name + ", has compute capability " +
                   std::to_string(facts.major) + "." + std::to_string(facts.minor) + "; 8.0 or later is needed");
  const OnDevice here(device);
  cudaFuncAttributes attributes;
  must(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(nothing_kernel<>)),
       "this library has no code for the device");
}

class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(int device, std::size_t bytes) : device_(device), bytes_(bytes) {
    if (!bytes) return;
    const OnDevice here(device);
    const cudaError_t error = cudaMalloc(&data_, bytes);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      std::size_t free = 0, all = 0;
      cudaMemGetInfo(&free, &all);
      throw DeviceFull(std::to_string(bytes) + " bytes of device " + std::to_string(device) + "; " + std::to_string(free) +
                       " of its " + std::to_string(all) + " are free");
    }
    must(error, "memory of a device");
  }
  DeviceMemory(DeviceMemory&& other) noexcept { swap(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~DeviceMemory() {
    if (data_) cudaFree(data_);
  }
  std::byte* data() const { return static_cast<std::byte*>(data_); }
  std::size_t bytes() const { return bytes_; }

 private:
  void swap(DeviceMemory& other) noexcept {
    std::swap(data_, other.data_), std::swap(bytes_, other.bytes_), std::swap(device_, other.device_);
  }
  void* data_ = nullptr;
  int device_ = 0;
  std::size_t bytes_ = 0;
};

class HostMemory {
 public:
  HostMemory() = default;
  explicit HostMemory(std::size_t bytes) : bytes_(bytes) {
    if (bytes && cudaMallocHost(&data_, bytes) != cudaSuccess) cudaGetLastError(), throw std::bad_alloc();
  }
  HostMemory(HostMemory&& other) noexcept { swap(other); }
  HostMemory& operator=(HostMemory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~HostMemory() {
    if (data_) cudaFreeHost(data_);
  }
  std::byte* data() const { return static_cast<std::byte*>(data_); }
  std::size_t bytes() const { return bytes_; }

 private:
  void swap(HostMemory& other) noexcept { std::swap(data_, other.data_), std::swap(bytes_, other.bytes_); }
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

class OwnStream {
 public:
  explicit OwnStream(int device) {
    const OnDevice here(device);
    must(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream");
  }
  OwnStream(const OwnStream&) = delete;
  ~OwnStream() { cudaStreamDestroy(stream_); }
  Stream get() const { return stream_; }

 private:
  Stream stream_ = nullptr;
};

class Event {
 public:
  explicit Event(int device) {
    const OnDevice here(device);
    must(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "an event");
  }
  Event(const Event&) = delete;
  ~Event() { cudaEventDestroy(event_); }
  void record(Stream stream) { must(cudaEventRecord(event_, stream), "an event"), recorded_ = true; }
  void stream_waits(Stream stream) const {
    if (recorded_) must(cudaStreamWaitEvent(stream, event_, 0), "waiting for an event");
  }
  void finish() const {
    if (recorded_) must(cudaEventSynchronize(event_), "waiting for an event");
  }

 private:
  cudaEvent_t event_ = nullptr;
  bool recorded_ = false;
};

inline void copied(Stream stream, void* to, const void* from, std::size_t bytes) {
  if (bytes) must(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream), "a copy");
}
inline void to_device(Stream stream, void* to, const void* from, std::size_t bytes) { copied(stream, to, from, bytes); }
inline void to_host(Stream stream, void* to, const void* from, std::size_t bytes) { copied(stream, to, from, bytes); }
inline void on_device(Stream stream, void* to, const void* from, std::size_t bytes) { copied(stream, to, from, bytes); }
inline void zero(Stream stream, void* p, std::size_t bytes) {
  if (bytes) must(cudaMemsetAsync(p, 0, bytes, stream), "zeros");
}
inline void finish(Stream stream) { must(cudaStreamSynchronize(stream), "a pass on the device"); }
inline Stream turn(Stream& stream) { return stream; }
// A stream of the caller, as a number: 0 and 1 the legacy default stream, 2 that of the thread.
inline Stream stream_of(std::uintptr_t number) { return reinterpret_cast<Stream>(number); }

class Graph {
 public:
  template <class F>
  Graph(Stream stream, const F& f) {
    must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "a graph");
    cudaGraph_t graph = nullptr;
    try {
      f();
    } catch (...) {
      if (cudaStreamEndCapture(stream, &graph) == cudaSuccess && graph) cudaGraphDestroy(graph);
      cudaGetLastError();
      throw;
    }
    must(cudaStreamEndCapture(stream, &graph), "a graph");
    const cudaError_t made = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    must(made, "a graph");
  }
  Graph(const Graph&) = delete;
  ~Graph() { cudaGraphExecDestroy(graph_); }
  void launch(Stream stream) const { must(cudaGraphLaunch(graph_, stream), "a graph"); }

 private:
  cudaGraphExec_t graph_ = nullptr;
};

// That a pointer is memory of this device.
inline void check_pointer(const void* p, int device, const char* name) {
  cudaPointerAttributes a{};
  const cudaError_t error = cudaPointerGetAttributes(&a, p);
  if (error != cudaSuccess) cudaGetLastError();
  if (error != cudaSuccess || (a.type != cudaMemoryTypeDevice && a.type != cudaMemoryTypeManaged))
    refuse(std::string(name) + " is no memory of a device");
  if (a.type == cudaMemoryTypeDevice && a.device != device)
    refuse(std::string(name) + " is memory of device " + std::to_string(a.device) + "; the model is on device " + std::to_string(device));
}

}  // namespace refimpl::cuda
