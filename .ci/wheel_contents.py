"""What a wheel must and must not hold: `wheel_contents.py FILE.whl`. Exits 1 on a breach."""

import sys
import zipfile
from pathlib import Path

# The bundled model is 8.8 MB in bfloat16; twice that would be a second copy.
LARGEST_WHEEL = 16e6

wheel = Path(sys.argv[1])
names = zipfile.ZipFile(wheel).namelist()
tops = {name.split("/")[0] for name in names}
models = [name for name in names if name.endswith(".safetensors")]
size = wheel.stat().st_size
print(f"{wheel.name}: {len(names)} files, {size / 1e6:.1f} MB, models: {', '.join(models)}")

faults = []
if models != ["refimpl/bundled/tiny/model.safetensors"]:
    faults.append("it must hold the bundled model, once")
for name in ("refimpl/py.typed", "refimpl/bundled/tiny/tokenizer.json"):
    if name not in names:
        faults.append(f"{name} is missing")
if any(top != "refimpl" and not top.endswith(".dist-info") for top in tops):
    faults.append(f"it holds {sorted(tops)}; only refimpl belongs there")
if size > LARGEST_WHEEL:
    faults.append(f"it is larger than {LARGEST_WHEEL / 1e6:.0f} MB")
sys.exit("\n".join(faults) or None)
