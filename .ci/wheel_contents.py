"""What a wheel must and must not hold: `wheel_contents.py FILE.whl`. Exits 1 on a breach.

The wheel is one that was built with the CPU engine.
"""

import sys
import zipfile
from pathlib import Path

# The bundled model is 8.8 MB in bfloat16, its heads have 1.1; the rest is the engine and Python.
LARGEST_WHEEL, LARGEST_ENGINE = 12e6, 5e6

wheel = Path(sys.argv[1])
sizes = {entry.filename: entry.file_size for entry in zipfile.ZipFile(wheel).infolist()}
names = list(sizes)
tops = {name.split("/")[0] for name in names}
models = [name for name in names if name.endswith(".safetensors")]
# The engine: its library, and the extension that finds it beside itself.
engines = [name for name in names if name.endswith(".so")]
size = wheel.stat().st_size
print(f"{wheel.name}: {len(names)} files, {size / 1e6:.1f} MB, models: {', '.join(models)}")

faults = []
bundled = [f"refimpl/bundled/{name}/adapter_model.safetensors" for name in ("classify", "embed")]
if sorted(models) != [*bundled, "refimpl/bundled/tiny/model.safetensors"]:
    faults.append("it must hold the bundled model, once, and the adapters of its two heads")
if len(engines) != 2 or sum(name.startswith("refimpl/backends/_native.") for name in engines) != 1:
    faults.append(f"it must hold the extension and its library, once, and holds {engines}")
elif sum(sizes[name] for name in engines) > LARGEST_ENGINE:
    faults.append(f"{engines} have more than {LARGEST_ENGINE / 1e6:.0f} MB; are they stripped?")
needed = (
    "py.typed",
    "teach/exercises/given/MODEL.md",
    "teach/exercises/given/port.py",
    "bundled/tiny/tokenizer.json",
    "backends/libmodernbert.so",
    "backends/modernbert.h",
    "backends/modernbert_text.h",
    "teach/page/frame.html",
    "teach/page/style.css",
    "teach/page/script/main.js",
)
for name in (f"refimpl/{name}" for name in needed):
    if name not in names:
        faults.append(f"{name} is missing")
if any(top != "refimpl" and not top.endswith(".dist-info") for top in tops):
    faults.append(f"it holds {sorted(tops)}; only refimpl belongs there")
if size > LARGEST_WHEEL:
    faults.append(f"it is larger than {LARGEST_WHEEL / 1e6:.0f} MB")
sys.exit("\n".join(faults) or None)
