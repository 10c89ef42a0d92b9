#include "abi/status.h"

#include <cstring>
#include <new>

#include "base/row_source.h"
#include "files/format_error.h"

namespace refimpl {
namespace {

// Fixed, so that running out of memory can be told.
thread_local char last_error[1024] = "";

int tell(int status, const char* text) {
  const std::size_t bytes = shown_bytes(text, std::strlen(text), sizeof last_error - 1);
  std::memcpy(last_error, text, bytes);
  last_error[bytes] = '\0';
  return status;
}

}  // namespace

int told() noexcept {
  try {
    throw;
  } catch (const FormatError& error) {
    return tell(MODERNBERT_BAD_FILE, error.what());
  } catch (const Unreadable& error) {
    return tell(MODERNBERT_BAD_FILE, error.what());
  } catch (const Interrupted&) {
    return tell(MODERNBERT_INTERRUPTED, "stopped by the caller's callback");
  } catch (const NoDevice& error) {
    return tell(MODERNBERT_NO_DEVICE, error.what());
  } catch (const DeviceFull& error) {
    return tell(MODERNBERT_OUT_OF_MEMORY, error.what());
  } catch (const std::bad_alloc&) {
    return tell(MODERNBERT_OUT_OF_MEMORY, "out of memory");
  } catch (const std::length_error&) {
    return tell(MODERNBERT_OUT_OF_MEMORY, "larger than any memory");
  } catch (const std::invalid_argument& error) {
    return tell(MODERNBERT_INVALID_ARGUMENT, error.what());
  } catch (const std::exception& error) {
    return tell(MODERNBERT_INTERNAL, error.what());
  } catch (...) {
    return tell(MODERNBERT_INTERNAL, "unknown");
  }
}

}  // namespace refimpl

extern "C" const char* modernbert_last_error(void) { return refimpl::last_error; }
