"""The build: the CPU engine where there is a C++17 compiler, numpy only where there is none.

    refimpl/backends/libmodernbert.so   all of csrc but its bindings: the engine as a C library
    refimpl/backends/_native...so       csrc/bindings*.cpp, which find the library beside itself
    refimpl/backends/modernbert*.h      the library's headers, in wheels and installs
    refimpl/backends/libmodernbert_cuda.so   csrc/cuda, where nvcc is (REFIMPL_CUDA)

Compiled for the plainest processor of the machine's kind; wider instructions stand in csrc/tiers
and are chosen when the program runs. All cores compile, and an object below build/ is taken again
as long as its source, what that includes, and the command are the same. Without compiler or
pybind11 the install goes on, warns, and leaves the reason where `refimpl.info()` finds it;
REFIMPL_REQUIRE_NATIVE=1 makes that an error. REFIMPL_CUDA is auto, or unset: built where nvcc 12.4
or later is on the PATH or in CUDA_HOME; 0: not built; 1: an error where it cannot be. No device is
needed, and the library asks for none until it is used. Everything declarative is in pyproject.toml.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# A product and a sum stay two roundings unless the code says fma: equal bits from every compiler.
EXACT = ["-std=c++17", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra"]
# Python asks for debug information, which takes a third of the time and is not linked.
COMPILE = [*EXACT, "-O3", "-g0"]
# What a process runs once, to read a tokenizer: half as large so.
SMALL = {"csrc/text/read_tokenizer.cpp", "csrc/text/settings.cpp"}
COMPILE_BINDINGS = [*EXACT, "-Os", "-g0"]  # no loops over data there
LINK = ["-pthread", "-Wl,-s"]
LIBRARY, EXPORTS = "libmodernbert.so", "csrc/libmodernbert.map"
# What users of the library include; modernbert_ops.h is for tests.
HEADERS = "csrc/modernbert.h", "csrc/modernbert_text.h"
BINDINGS = sorted(glob("csrc/*.cpp"))
ROOM = Path("refimpl", "backends")

# The device engine, and what it shares with the CPU's: checks of arguments, numbers as they are
# stored.
CUDA_LIBRARY, CUDA_EXPORTS = "libmodernbert_cuda.so", "csrc/libmodernbert_cuda.map"
CUDA_SOURCES = sorted(glob("csrc/cuda/*.cu"))
CUDA_NOTE = "cuda_not_built.txt"
CUDA_SHARED = [
    *("abi/given", "abi/input", "abi/status", "base/tensor", "base/row_source", "files/config"),
    *("files/fetched_file", "files/json", "files/safetensors"),
    *("kernels/activations", "kernels/pooling"),
]
# The floor, the aim, and code that drivers compile for what comes after them.
ARCHITECTURES = ["arch=compute_80,code=[sm_80,compute_80]", "arch=compute_90a,code=sm_90a"]
OLDEST_NVCC = (12, 4)
# -fmad=false: a product and a sum stay two roundings here too.
COMPILE_CUDA = ["-std=c++17", "-O3", "-fmad=false", "-Werror=all-warnings"]
COMPILE_CUDA += ["-Xcompiler=-fPIC,-fvisibility=hidden,-ffp-contract=off,-ffunction-sections,-Wall"]
LINK_CUDA = ["-shared", "-cudart=static", f"-Xlinker=--version-script={CUDA_EXPORTS}"]
LINK_CUDA += ["-Xlinker=--gc-sections,-s,--no-undefined"]
VERSION = re.search(r'= "(.+)"', Path("refimpl/_version.py").read_text()).group(1)


class BuildEngine(build_ext):
    """Builds the library and the extension, or says once why there are none."""

    def run(self):
        package = ROOM if self.inplace else Path(self.build_lib, ROOM)
        note = package / "native_not_built.txt"
        stale = [note, *(package / name for name in (LIBRARY, CUDA_LIBRARY, CUDA_NOTE))]
        for path in [*stale, *package.glob("_native.*.so")]:
            path.unlink(missing_ok=True)
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
                for header in HEADERS:
                    shutil.copy(header, package)
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
        self.build_cuda(package)

    def build_cuda(self, package):
        """The library for devices, or a line that says why there is none."""
        wanted = os.environ.get("REFIMPL_CUDA") or "auto"
        if wanted not in ("0", "1", "auto"):
            raise ValueError(f"REFIMPL_CUDA is {wanted!r}; it must be 0, 1 or auto")
        if not CUDA_SOURCES:
            return
        try:
            if wanted == "0":
                raise RuntimeError("REFIMPL_CUDA was 0")
            nvcc = nvcc_here()
            sources = [*CUDA_SOURCES, *(f"csrc/{name}.cpp" for name in CUDA_SHARED)]
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                objects = list(pool.map(lambda source: self.cuda_object(nvcc, source), sources))
            package.mkdir(parents=True, exist_ok=True)
            run_nvcc([*nvcc[:1], *LINK_CUDA, "-o", str(package / CUDA_LIBRARY), *objects])
            if not self.inplace:
                shutil.copy("csrc/modernbert_cuda.h", package)
        except Exception as error:
            if wanted == "1":
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            package.mkdir(parents=True, exist_ok=True)
            (package / CUDA_NOTE).write_text(reason + "\n")

    def cuda_object(self, nvcc, source):
        """The compiled source, as object_of has it."""
        made = Path(self.build_temp, "cuda", source).with_suffix(".o")
        key = made.with_suffix(".key")
        named = "+".join(re.findall(r"sm_\w+", " ".join(ARCHITECTURES))).replace("+", " ")
        macros = [f'-DREFIMPL_VERSION="{VERSION}"', f'-DREFIMPL_CUDA_ARCHITECTURES="{named}"']
        targets = [f"-gencode={a}" for a in ARCHITECTURES] if source.endswith(".cu") else []
        options = [*COMPILE_CUDA, *targets, *macros, "-Icsrc"]
        text = repr((nvcc, options)).encode() + b"".join(p.read_bytes() for p in included(source))
        wanted = hashlib.sha256(text).hexdigest()
        if not (made.exists() and key.exists() and key.read_text() == wanted):
            key.unlink(missing_ok=True)
            made.parent.mkdir(parents=True, exist_ok=True)
            run_nvcc([nvcc[0], *options, "-c", "-o", str(made), source])
            key.write_text(wanted)
        return str(made)

    def build_extensions(self):
        """Every source of both at once, and then the linking."""
        extension_of = {source: e for e in self.extensions for source in e.sources}
        # The largest first, so that none of them begins last.
        largest = sorted(extension_of, key=os.path.getsize, reverse=True)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            made = pool.map(lambda source: self.object_of(source, extension_of[source]), largest)
            objects = dict(zip(largest, made, strict=True))
        for e in self.extensions:
            e.extra_objects, e.sources = [objects[source] for source in e.sources], []
        # Linked again each time: the compiler would ask whole seconds what is newer.
        self.force = self.compiler.force = True
        super().build_extensions()

    def object_of(self, source, extension):
        """The compiled source: that of an earlier build where nothing has changed since."""
        place = Path(self.build_temp)
        if self.editable_mode:  # for which setuptools compiles in a folder that it deletes
            place = Path("build", f"temp.{sysconfig.get_platform()}-{sys.implementation.cache_tag}")
        made = (place / source).with_suffix(".o")
        key = made.with_suffix(".key")
        options = [*extension.extra_compile_args, *(["-Os"] if source in SMALL else [])]
        wanted = fingerprint(source, self.compiler, extension, options)
        if not (made.exists() and key.exists() and key.read_text() == wanted):
            key.unlink(missing_ok=True)
            self.compiler.compile(
                [source],
                output_dir=str(place),
                macros=extension.define_macros,
                include_dirs=extension.include_dirs,
                extra_postargs=options,
            )
            key.write_text(wanted)
        return str(made)

    def get_ext_filename(self, fullname):
        """The library is no extension of one Python: it goes by its own name."""
        path = super().get_ext_filename(fullname)
        return os.path.join(os.path.dirname(path), LIBRARY) if "libmodernbert" in fullname else path


def nvcc_here():
    """nvcc's path and version. RuntimeError where there is none that is new enough."""
    places = [
        os.path.join(os.environ[n], "bin") for n in ("CUDA_HOME", "CUDA_PATH") if n in os.environ
    ]
    path = next(filter(None, (shutil.which("nvcc", path=p) for p in [*places, None])), None)
    if path is None:
        raise RuntimeError("there is no nvcc on the PATH or in CUDA_HOME")
    told = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"release (\d+)\.(\d+)", told)
    version = tuple(map(int, found.groups())) if found else (0, 0)
    if version < OLDEST_NVCC:
        raise RuntimeError(f"{path} is of CUDA {version[0]}.{version[1]}; 12.4 or later is needed")
    return path, told


def run_nvcc(command):
    """RuntimeError with nvcc's last words where it fails."""
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        said = [line for line in (ran.stdout + ran.stderr).splitlines() if line.strip()]
        print("\n".join(said), file=sys.stderr)
        raise RuntimeError(f"nvcc failed: {next((s for s in said if 'error' in s), 'no word')}")
    if told := ran.stderr.strip():
        print(told, file=sys.stderr)


def included(source):
    """A source and what it includes of csrc/, where every name is a path from there."""
    found, new = set(), {Path(source)}
    while new:
        found |= new
        names = [n for p in new for n in re.findall(r'#include "([^"]+)"', p.read_text("utf-8"))]
        new = {Path("csrc", name) for name in names} - found
    return sorted(found)


def fingerprint(source, compiler, extension, options):
    """What an object depends on. pybind11 by its version: pip puts it elsewhere each time."""
    import pybind11

    commands = [compiler.compiler_so, getattr(compiler, "compiler_so_cxx", None)]
    version = subprocess.run([commands[0][0], "--version"], capture_output=True, text=True).stdout
    of_all = [commands, version, options, extension.define_macros]
    of_all += [pybind11.__version__, sys.version]
    text = repr(of_all).encode() + b"".join(path.read_bytes() for path in included(source))
    return hashlib.sha256(text).hexdigest()


def extension(name, files, options, link, **more):
    return Extension(
        name,
        files,
        extra_compile_args=options,
        extra_link_args=[*LINK, *link],
        language="c++",
        **more,
    )


setup(
    ext_modules=[
        extension(
            "refimpl.backends.libmodernbert",
            sorted(path for path in glob("csrc/**/*.cpp", recursive=True) if path not in BINDINGS),
            COMPILE,
            # nodelete: its threads outlive a dlclose
            [f"-Wl,-soname,{LIBRARY}", f"-Wl,--version-script={EXPORTS}", "-Wl,-z,nodelete"],
            define_macros=[("REFIMPL_VERSION", f'"{VERSION}"')],
        ),
        extension(
            "refimpl.backends._native",
            BINDINGS,
            COMPILE_BINDINGS,
            ["-Wl,-rpath,$ORIGIN"],
            libraries=["modernbert"],
        ),
    ],
    cmdclass={"build_ext": BuildEngine},
)
