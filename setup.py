"""The build: the CPU engine where there is a C++17 compiler, numpy only where there is none.

Compiled for the plainest processor of the machine's kind; wider instructions stand in csrc/tiers
and are chosen when the program runs. Without compiler or pybind11 the install goes on, warns, and
leaves the reason where `refimpl.info()` finds it; REFIMPL_REQUIRE_NATIVE=1 makes that an error.
Everything declarative is in pyproject.toml.
"""

import os
import re
import sys
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# A product and a sum stay two roundings unless the code says fma: equal bits from every compiler.
COMPILE = ["-std=c++17", "-O3", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra"]
LINK = ["-pthread", "-Wl,-s"]


class BuildEngine(build_ext):
    """Builds the extension, or says once why there is none."""

    def run(self):
        package = Path("refimpl") if self.inplace else Path(self.build_lib, "refimpl")
        note = package / "native_not_built.txt"
        for stale in [note, *package.glob("_native.*.so")]:
            stale.unlink(missing_ok=True)
        try:
            if not sys.platform.startswith("linux"):
                raise RuntimeError(f"it is built on Linux only, and this is {sys.platform}")
            import pybind11

            for extension in self.extensions:
                extension.include_dirs += ["csrc", pybind11.get_include()]
            super().run()
        except Exception as error:
            if os.environ.get("REFIMPL_REQUIRE_NATIVE") == "1":
                raise
            self.extensions = []
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            reason = re.sub(r"\['([^']*)'.*\]", r"\1 ...", reason)  # the command, without arguments
            package.mkdir(parents=True, exist_ok=True)
            note.write_text(reason + "\n")
            print(
                f"warning: the CPU engine was not built ({reason}); modernbert-refimpl will run on "
                "numpy alone. `modernbert info` tells this again.",
                file=sys.stderr,
            )


def sources(*endings):
    return sorted(path for e in endings for path in glob(f"csrc/**/*{e}", recursive=True))


setup(
    ext_modules=[
        Extension(
            "refimpl._native",
            sources(".cpp"),
            depends=sources(".h", ".inl", ".inc"),
            extra_compile_args=COMPILE,
            extra_link_args=LINK,
            language="c++",
        )
    ],
    cmdclass={"build_ext": BuildEngine},
)
