"""The build: the CPU engine where there is a C++17 compiler, numpy only where there is none.

    refimpl/backends/libmodernbert.so   all of csrc but its bindings: the engine as a C library
    refimpl/backends/_native...so       csrc/bindings.cpp, which finds the library beside itself
    refimpl/backends/modernbert.h       the library's header, in wheels and installs

Compiled for the plainest processor of the machine's kind; wider instructions stand in csrc/tiers
and are chosen when the program runs. Without compiler or pybind11 the install goes on, warns, and
leaves the reason where `refimpl.info()` finds it; REFIMPL_REQUIRE_NATIVE=1 makes that an error.
Everything declarative is in pyproject.toml.
"""

import os
import re
import shutil
import sys
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# A product and a sum stay two roundings unless the code says fma: equal bits from every compiler.
COMPILE = ["-std=c++17", "-O3", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra"]
LINK = ["-pthread", "-Wl,-s"]
LIBRARY, EXPORTS = "libmodernbert.so", "csrc/libmodernbert.map"
BINDINGS = "csrc/bindings.cpp"
ROOM = Path("refimpl", "backends")
VERSION = re.search(r'= "(.+)"', Path("refimpl/_version.py").read_text()).group(1)


class BuildEngine(build_ext):
    """Builds the library and the extension, or says once why there are none."""

    def run(self):
        package = ROOM if self.inplace else Path(self.build_lib, ROOM)
        note = package / "native_not_built.txt"
        for stale in [note, package / LIBRARY, *package.glob("_native.*.so")]:
            stale.unlink(missing_ok=True)
        try:
            if not sys.platform.startswith("linux"):
                raise RuntimeError(f"it is built on Linux only, and this is {sys.platform}")
            import pybind11

            self.parallel = None  # the extension links the library, which is built before it
            for extension in self.extensions:
                extension.include_dirs += ["csrc", pybind11.get_include()]
                extension.library_dirs.append(str(Path(self.build_lib, ROOM)))
            super().run()
            if not self.inplace:
                shutil.copy("csrc/modernbert.h", package)
        except Exception as error:
            if os.environ.get("REFIMPL_REQUIRE_NATIVE") == "1":
                raise
            self.extensions = []
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            reason = re.sub(r"\['([^']*)'.*\]", r"\1 ...", reason)  # the command, without arguments
            package.mkdir(parents=True, exist_ok=True)
            (package / LIBRARY).unlink(missing_ok=True)
            note.write_text(reason + "\n")
            print(
                f"warning: the CPU engine was not built ({reason}); modernbert-refimpl will run on "
                "numpy alone. `modernbert info` tells this again.",
                file=sys.stderr,
            )

    def get_ext_filename(self, fullname):
        """The library is no extension of one Python: it goes by its own name."""
        path = super().get_ext_filename(fullname)
        return os.path.join(os.path.dirname(path), LIBRARY) if "libmodernbert" in fullname else path


def sources(*endings):
    return sorted(path for e in endings for path in glob(f"csrc/**/*{e}", recursive=True))


def extension(name, files, link, **options):
    return Extension(
        name,
        files,
        depends=[*sources(".h", ".inl", ".inc"), EXPORTS],
        extra_compile_args=COMPILE,
        extra_link_args=[*LINK, *link],
        language="c++",
        **options,
    )


setup(
    ext_modules=[
        extension(
            "refimpl.backends.libmodernbert",
            [path for path in sources(".cpp") if path != BINDINGS],
            # nodelete: its threads outlive a dlclose
            [f"-Wl,-soname,{LIBRARY}", f"-Wl,--version-script={EXPORTS}", "-Wl,-z,nodelete"],
            define_macros=[("REFIMPL_VERSION", f'"{VERSION}"')],
        ),
        extension(
            "refimpl.backends._native", [BINDINGS], ["-Wl,-rpath,$ORIGIN"], libraries=["modernbert"]
        ),
    ],
    cmdclass={"build_ext": BuildEngine},
)
