"""Questions about a picture as the engine asks them: several packed behind one picture, none of which sees another."""

import torch

from language import AFTER_QUESTION, BEFORE_QUESTION, END, SYSTEM, LanguageModel

BEFORE_PICTURE = SYSTEM + BEFORE_QUESTION + "<Image><tile_1>"
AFTER_PICTURE = "</Image>\n"


class Asker:
    def __init__(self, language: LanguageModel):
        self.language = language
        device = language.device
        ids = torch.tensor([language.ids(BEFORE_PICTURE)], device=device)
        self.prefix_length = length = ids.shape[1]
        with torch.no_grad():
            mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=device).tril()
            positions = torch.arange(length, device=device)[None].float()
            _, self.past = language.forward(language.embedding[ids], positions, mask, keep=True)
        self.after = language.ids(AFTER_PICTURE)

    def pack(self, embeddings: torch.Tensor, questions: list[list[tuple[str, str]]]):
        """Hidden states of all answers' tokens.

        embeddings: (B, S, H); questions: per picture (question, answer). Returns (N, H) states that predict, (N) the ids to
        predict, and for each of the N the (picture, question) it belongs to.
        """
        language, slots = self.language, embeddings.shape[1]
        rows, positions, branches, targets = [], [], [], []
        for b, asked in enumerate(questions):
            ids, at, branch = list(self.after), list(range(slots, slots + len(self.after))), [0] * len(self.after)
            for n, (question, answer) in enumerate(asked):
                asking = language.ids(question + AFTER_QUESTION)
                answering = language.ids(answer + END)
                start, first = len(ids) + len(asking) - 1, slots + len(self.after)
                targets += [(b, slots + start + i, token, n) for i, token in enumerate(answering)]
                added = asking + answering[:-1]
                ids += added
                at += range(first, first + len(added))
                branch += [n + 1] * len(added)
            rows.append(ids)
            positions.append(at)
            branches.append(branch)
        longest = max(map(len, rows))
        pad = lambda lists, value: torch.tensor([row + [value] * (longest - len(row)) for row in lists])
        ids, at, branch = pad(rows, 0), pad(positions, 0), pad(branches, -1)
        batch = len(rows)
        at = torch.cat((torch.arange(slots).expand(batch, -1), at), 1) + self.prefix_length
        branch = torch.cat((torch.zeros(batch, slots, dtype=torch.long), branch), 1)
        sees = (branch[:, :, None] == branch[:, None]) | (branch[:, None] == 0)
        sees &= torch.ones(sees.shape[1:], dtype=torch.bool).tril()
        mask = torch.cat((torch.ones(batch, sees.shape[1], self.prefix_length, dtype=torch.bool), sees), 2)[:, None]
        device = language.device
        x = torch.cat((embeddings, language.embedding[ids.to(device)]), 1)
        hidden, _ = language.forward(x, at.float().to(device), mask.to(device), self.past)
        picture, row, token, question = (torch.tensor(part, device=device) for part in zip(*targets, strict=True))
        return hidden[picture, row], token, list(zip(picture.tolist(), question.tolist(), strict=True))
