// CHECK for the programs that end at the first thing that is not so, with where and what.
#pragma once

#include <cstdio>
#include <cstdlib>

#define CHECK(what)                                                            \
  do {                                                                         \
    if (!(what)) {                                                             \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
      std::_Exit(1);                                                           \
    }                                                                          \
  } while (0)
