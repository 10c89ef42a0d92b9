// What the files of the module refimpl.backends._native share.
#pragma once

#include <pybind11/pybind11.h>

// A status of the C interface as Python's exception; called with the GIL.
void check(int status);

// Without the GIL while this lives.
struct Released {
  Released();
  ~Released();
  Released(const Released&) = delete;
};

// f() is a status, given without the GIL.
template <class F>
int released(F f) {
  const Released without;
  return f();
}

// bindings_text.cpp: adds the class Tokenizer.
void bind_text(pybind11::module_& m);

// bindings_training.cpp: adds the class Training, rows_* and update.
void bind_training(pybind11::module_& m);
