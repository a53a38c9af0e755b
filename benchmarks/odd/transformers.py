"""Known families of transformers and mixers, made tiny."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from odd.network import PROVED, network
from odd.parts import Block, Residual, chain


class Patches(nn.Module):
    """Patches of 2×2 as 16 tokens of 16 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 16, 2, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        maps: Tensor = self.embed(inputs)
        return maps.flatten(2).transpose(1, 2)


@network(PROVED)
def vision_transformer() -> nn.Module:
    """ViT: a class token joined to the patches, trained positions, two blocks."""

    class Vision(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.blocks = Patches(), nn.Sequential(Block(), Block())
            self.token = nn.Parameter(torch.zeros(1, 1, 16))
            self.position = nn.Parameter(torch.randn(1, 17, 16) * 0.02)
            self.norm = nn.LayerNorm(16)

        def forward(self, inputs: Tensor) -> Tensor:
            patches = self.patches(inputs)
            joined = torch.cat([self.token.expand(patches.shape[0], -1, -1), patches], 1)
            answer: Tensor = self.norm(self.blocks(joined + self.position))[:, 0]
            return answer

    return Vision()


@network(PROVED)
def shifted_windows() -> nn.Module:
    """Swin: windows of 2×2 of the tokens, shifted by a roll, masked by -100 at the seam."""

    class Windows(nn.Module):
        mask: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(16, 48)
            region = torch.zeros(4, 4)
            for number, (rows, columns) in enumerate(
                (r, c) for r in ((0, 2), (2, 3), (3, 4)) for c in ((0, 2), (2, 3), (3, 4))
            ):
                region[slice(*rows), slice(*columns)] = number
            regions = self.parted(region[None, :, :, None])[..., 0]
            apart = regions[:, None] != regions[:, :, None]
            self.register_buffer("mask", apart * -100.0, persistent=False)

        @staticmethod
        def parted(maps: Tensor) -> Tensor:
            count, height, width, channels = maps.shape
            cut = maps.view(count, height // 2, 2, width // 2, 2, channels)
            return cut.permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, channels)

        def forward(self, inputs: Tensor) -> Tensor:
            count = inputs.shape[0]
            rolled = inputs.view(count, 4, 4, 16).roll((-1, -1), (1, 2))
            query, key, value = self.project(self.parted(rolled)).chunk(3, 2)
            scores = (query @ key.mT / 4).view(count, 4, 4, 4) + self.mask
            answer = scores.softmax(3).view(-1, 4, 4) @ value
            whole = answer.view(count, 2, 2, 2, 2, 16).permute(0, 1, 3, 2, 4, 5)
            back = whole.reshape(count, 4, 4, 16).roll((1, 1), (1, 2))
            return inputs + back.reshape(count, 16, 16)

    return chain(Patches(), Windows(), Block(), lambda t: t.mean(1))


@network(PROVED)
def mixer() -> nn.Module:
    """MLP-Mixer: layers across tokens, then across channels."""

    def across(width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 24), nn.GELU(), nn.Linear(24, width)
        )

    turned = Residual(chain(lambda t: t.mT, across(16), lambda t: t.mT))
    return chain(Patches(), turned, Residual(across(16)), nn.LayerNorm(16), lambda t: t.mean(1))


@network(PROVED)
def gated_tokens() -> nn.Module:
    """gMLP: half of the channels gates the other, mixed across tokens, near one at first."""

    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.leave = nn.Linear(16, 32), nn.Linear(16, 16)
            self.norm, self.mix = nn.LayerNorm(16), nn.Conv1d(16, 16, 1)
            nn.init.zeros_(self.mix.weight)
            nn.init.ones_(self.mix.bias)

        def forward(self, inputs: Tensor) -> Tensor:
            kept, gate = F.gelu(self.enter(inputs)).chunk(2, -1)
            answer: Tensor = self.leave(kept * self.mix(self.norm(gate)))
            return answer

    return chain(Patches(), Residual(Gate()), Residual(Gate()), lambda t: t.amax(1))


@network(PROVED)
def pooled_tokens() -> nn.Module:
    """PoolFormer: the mean of neighbours less the token itself, in place of attention."""
    pool = chain(nn.GroupNorm(1, 16), lambda t: F.avg_pool2d(t, 3, 1, 1) - t)
    return chain(
        nn.Conv2d(1, 16, 2, 2), Residual(pool), nn.Conv2d(16, 16, 1), nn.GELU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


@network(PROVED)
def bytes_read_as_text() -> nn.Module:
    """A transformer over 64 embedded bytes, causal, read at the last."""

    class Bytes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(257, 16, padding_idx=256)
            self.place = nn.Embedding(64, 16)
            self.layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)

        def forward(self, inputs: Tensor) -> Tensor:
            numbers = ((inputs.flatten(1) + 1) * 127.5).round().to(torch.int64)
            embedded = self.table(numbers) + self.place(torch.arange(numbers.shape[1]))
            mask = torch.ones(64, 64, dtype=torch.bool).triu(1)
            answer: Tensor = self.layer(embedded, src_mask=mask)[:, -1]
            return answer

    return Bytes()


@network(PROVED)
def tokens_merged() -> nn.Module:
    """Neighbouring patches merged as Swin does, then one block: 16 tokens to 4."""

    class Merged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.reduce = nn.LayerNorm(64), nn.Linear(64, 16, bias=False)

        def forward(self, inputs: Tensor) -> Tensor:
            maps = inputs.unflatten(1, (4, 4))
            corners = [maps[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
            answer: Tensor = self.reduce(self.norm(torch.cat(corners, -1).flatten(1, 2)))
            return answer

    return chain(Patches(), Block(), Merged(), Block(), lambda t: t.flatten(1), nn.Linear(64, 16))


@network(PROVED)
def latent_array() -> nn.Module:
    """Perceiver: four latent vectors read the pixels twice with the same weights."""

    class Latents(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.latents = nn.Parameter(torch.randn(4, 16) / 4)
            self.read = nn.MultiheadAttention(16, 1, kdim=17, vdim=17, batch_first=True)
            self.think = Block()
            self.register_buffer("place", torch.randn(64, 16))

        def forward(self, inputs: Tensor) -> Tensor:
            place = self.place.expand(inputs.shape[0], -1, -1)
            pixels = torch.cat([inputs.flatten(2).mT, place], 2)
            state = self.latents.expand(len(inputs), -1, -1)
            for _ in range(2):
                state = self.think(state + self.read(state, pixels, pixels)[0])
            return state.mean(1)

    return Latents()
