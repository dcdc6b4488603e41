"""Small networks for tests of the capture."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, c: int, k: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c, k, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(k)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(k, k, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(k)
        self.downsample = None
        if stride != 1 or c != k:
            self.downsample = nn.Sequential(nn.Conv2d(c, k, 1, stride, bias=False), nn.BatchNorm2d(k))

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + shortcut)


class ResNet18(nn.Module):
    """ImageNet form: 7x7 stem with stride 2, max pooling, widths 64 to 512 (times `width` / 64)."""

    def __init__(self, classes: int = 1000, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        c = width
        for stage in range(1, 5):
            k = width << (stage - 1)
            setattr(self, f"layer{stage}", nn.Sequential(Block(c, k, 1 if stage == 1 else 2), Block(k, k, 1)))
            c = k
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(c, classes)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Vgg(nn.Sequential):
    """Convolutions with bias, batch norm and max pooling; global average before the classifier."""

    def __init__(self) -> None:
        modules: list[nn.Module] = []
        c = 3
        for k in (8, 16):
            modules += [nn.Conv2d(c, k, 3, padding=1), nn.BatchNorm2d(k), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
            c = k
        super().__init__(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(c, 10))


class Inverted(nn.Module):
    def __init__(self, c: int, k: int, stride: int) -> None:
        super().__init__()
        hidden = 4 * c
        self.conv = nn.Sequential(
            nn.Conv2d(c, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, k, 1, bias=False), nn.BatchNorm2d(k),
        )  # fmt: skip
        self.residual = stride == 1 and c == k

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True),
            Inverted(8, 8, 1), Inverted(8, 16, 2), Inverted(16, 16, 1),
        )  # fmt: skip
        self.classifier = nn.Linear(16, 10)

    def forward(self, x):
        return self.classifier(self.features(x).mean([2, 3]))


def training_step(model, shape, optimizer=None, classes=10):
    """A closure that performs one whole step on random data."""
    optimizer = optimizer or torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    x, y = torch.randn(shape), torch.zeros(shape[0], dtype=torch.long)

    def step():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


class VisionTransformer(nn.Module):
    """Class token, learned positions, pre-norm blocks; attention written out as its two products."""

    def __init__(self, depth: int, features: int, heads: int, patch: int, patches: int, classes: int) -> None:
        super().__init__()
        self.heads = heads
        self.patch_embed = nn.Conv2d(3, features, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, features))
        self.pos_embed = nn.Parameter(torch.zeros(1, patches + 1, features))
        self.blocks = nn.ModuleList(nn.ModuleDict({
            "norm1": nn.LayerNorm(features), "qkv": nn.Linear(features, 3 * features),
            "proj": nn.Linear(features, features), "norm2": nn.LayerNorm(features),
            "fc1": nn.Linear(features, 4 * features), "gelu": nn.GELU(), "fc2": nn.Linear(4 * features, features),
        }) for _ in range(depth))  # fmt: skip
        self.norm = nn.LayerNorm(features)
        self.head = nn.Linear(features, classes)

    def attention(self, block, x):
        n, t, d = x.shape
        q, k, v = block["qkv"](x).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return block["proj"](y.transpose(1, 2).reshape(n, t, d))

    def forward(self, image):
        x = self.patch_embed(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = x + self.attention(block, block["norm1"](x))
            x = x + block["fc2"](block["gelu"](block["fc1"](block["norm2"](x))))
        return self.head(self.norm(x)[:, 0])


class ImportNet(nn.Module):
    """What the files in tests/data/imports hold: convolutions, batch norm, a sum, pooling, a block of attention."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.pointwise = nn.Conv2d(8, 8, 1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.proj = nn.Linear(8, 8)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = F.relu(self.bn(self.stem(x)))
        x = self.pool(x + self.pointwise(self.depthwise(x)))
        x = x.flatten(2).transpose(1, 2)
        n, t, d = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, t, 3, 2, d // 2).permute(2, 0, 3, 1, 4).unbind(0)
        y = (q @ k.transpose(-2, -1) * (d // 2) ** -0.5).softmax(-1) @ v
        x = x + self.proj(y.transpose(1, 2).reshape(n, t, d))
        return self.head(F.gelu(x).mean(1))


class FusedAttentionNet(nn.Module):
    """A pre-norm transformer block of two causal heads, whose attention is PyTorch's fused kernel, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.proj = nn.Linear(16, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = (part.view(n, t, 2, 8).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head((x + self.proj(y.transpose(1, 2).reshape(n, t, d))).mean(1))
