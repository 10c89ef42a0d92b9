"""Training: the adjoint of every equation, losses, optimisers, a trainer; numpy or the CPU engine.

adjoints.py is reference/ops.py backwards, encoder.py is reference/encoder.py backwards, and so on:
each file names the one it belongs to. loss_gradients.py is the public way to them; finetune.py and
pretrain.py train from files, Trainer from what `work.py` describes.
Imports: reference, text, nlp, files, backends, models.
"""

from ..files.adapter import read_adapter, write_adapter
from ..reference.lora import Adapter, merged, unmerged
from .finetune import finetune
from .lora import drawn as draw_adapter
from .loss_gradients import Draws, gradients
from .optimisers import AdamW, StableAdamW
from .pretrain import pretrain
from .schedules import Schedule
from .settings import Settings
from .trainer import Trainer
from .work import Supervised

__all__ = [
    "Adapter",
    "AdamW",
    "Draws",
    "Schedule",
    "Settings",
    "StableAdamW",
    "Supervised",
    "Trainer",
    "draw_adapter",
    "finetune",
    "gradients",
    "merged",
    "pretrain",
    "read_adapter",
    "unmerged",
    "write_adapter",
]
