"""Training in numpy: the adjoint (backward pass) of every equation, losses, optimisers, a trainer.

adjoints.py is reference/ops.py backwards, encoder.py is reference/encoder.py backwards, and so on:
each file names the one it belongs to. loss_gradients.py is the public way to them.
Imports: reference, text, nlp, files, backends, models.
"""

from .loss_gradients import Draws, gradients
from .optimisers import AdamW, StableAdamW
from .schedules import Schedule

__all__ = ["AdamW", "Draws", "Schedule", "StableAdamW", "gradients"]
