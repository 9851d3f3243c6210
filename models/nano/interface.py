"""What the projector is to say: for every embedding of a picture, a sum of vectors that stand for facts.

The vectors are learned through the frozen language model (train_interface.py), so that it answers from them; they start as
its own word embeddings. All embeddings of a group of shapes carry all facts of the group, each in vectors of its own.
"""

import torch
from torch import nn

from words import COLOURS, COUNTS, DIGITS, FILLER, KINDS, NAMES, PLACES, SHAPES, SLOTS

FACTS = 4
SHARE_OF_OTHERS = 0.3
TENS = [str(value) for value in range(10, 100, 10)]


def _names() -> list[tuple[str, str, float]]:
    """(name, word to start from, share of its embedding)"""
    group = [COUNTS, list(COLOURS), SHAPES, PLACES]
    names = [("", FILLER, 0.0), (FILLER, FILLER, 1.0)]
    for role in range(4):
        for i, words in enumerate(group):
            names += [(f"group{role}/{word}", word, 1.0 if i == role else SHARE_OF_OTHERS) for word in words]
    for role in range(3):
        names += [(f"part{role}/{word}", word, 1.0 if role == 0 else SHARE_OF_OTHERS) for word in COLOURS]
        names += [(f"part{role}/{value}", value[0], SHARE_OF_OTHERS if role == 0 else 1.0) for value in TENS]
        names += [(f"row{role}/{word}", word, 1.0 if role == 0 else SHARE_OF_OTHERS) for word in NAMES]
        names += [(f"row{role}/tens{d}", d, 1.0 if role == 1 else SHARE_OF_OTHERS) for d in DIGITS]
        names += [(f"row{role}/ones{d}", d, 1.0 if role == 2 else SHARE_OF_OTHERS) for d in DIGITS]
    words = [*COLOURS, *COUNTS, *DIGITS, *NAMES, *KINDS]
    return names + [(word, word, 1.0) for word in words]


NAMES_AND_STARTS = _names()
FACT_INDEX = {name: i for i, (name, _, _) in enumerate(NAMES_AND_STARTS)}


def facts_of(caption: list[str]) -> list[list[int]]:
    """(SLOTS, FACTS) indices of facts, 0 where there are fewer."""
    slots: list[list[str]] = [[word] for word in caption]
    kind = caption[0]
    if kind == "shapes":
        for at in (1, 5, 9):
            words = [word for word in caption[at : at + 4] if word != FILLER]
            if words:
                slots[at : at + 4] = [[f"group{role}/{word}" for word in words] for role in range(4)]
    elif kind in ("bar", "pie"):
        for at in (1, 4, 7, 10):
            colour, tens, ones = caption[at : at + 3]
            if colour != FILLER:
                slots[at : at + 3] = [[f"part{role}/{colour}", f"part{role}/{tens}{ones}"] for role in range(3)]
    elif kind == "table":
        for at in (1, 4, 7):
            name, tens, ones = caption[at : at + 3]
            if name != FILLER:
                slots[at : at + 3] = [[f"row{role}/{name}", f"row{role}/tens{tens}", f"row{role}/ones{ones}"] for role in range(3)]
    indices = [[FACT_INDEX[fact] for fact in slot] for slot in slots]
    return [slot + [0] * (FACTS - len(slot)) for slot in indices]


class Interface(nn.Module):
    """(..., SLOTS, FACTS) indices -> (..., SLOTS, hidden) embeddings"""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.facts = nn.Parameter(torch.zeros(len(NAMES_AND_STARTS), hidden_size))
        self.places = nn.Parameter(torch.zeros(SLOTS, hidden_size))

    def start_from(self, embedding_of):
        """Words stand for themselves at first."""
        with torch.no_grad():
            self.facts.copy_(torch.stack([embedding_of(word) * share for _, word, share in NAMES_AND_STARTS]))

    def forward(self, facts: torch.Tensor) -> torch.Tensor:
        known = (facts > 0)[..., None]
        return (self.facts[facts] * known).sum(-2) + self.places
