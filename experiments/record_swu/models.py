"""ResNet-18, VGG-16-BN and MobileNetV2 in their CIFAR forms, with torchvision's module names.

The CIFAR form keeps early maps large: a 3x3 stride-1 stem instead of 7x7 stride-2, no pooling
after it, and (MobileNetV2) stride 1 in the second stage. Widths are the standard ones, so the
weights - and the masks that belong to them - do not depend on the image size; every network here
accepts 16x16, 32x32 and 224x224 input with 3 channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

NETWORKS = ("resnet18", "vgg16_bn", "mobilenetv2")

VGG16_CHANNELS = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)

# (expansion, output channels, blocks, stride of the first block): table 2 of MobileNetV2
# (arXiv 1801.04381); the second row's stride is 1 instead of 2, the usual CIFAR change.
MOBILENETV2_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut; 1x1 projection when the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample = None
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + shortcut)


class ResNet18(nn.Module):
    """CIFAR ResNet-18: widths 64, 128, 256, 512, two blocks each."""

    classifier_name = "fc"

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        channels = 64
        for stage, width in enumerate((64, 128, 256, 512), start=1):
            first = BasicBlock(channels, width, 1 if stage == 1 else 2)
            setattr(self, f"layer{stage}", nn.Sequential(first, BasicBlock(width, width, 1)))
            channels = width
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, classes)

    def features_of(self, x: Tensor) -> Tensor:
        """Input of the classifier, [batch, 512]."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return torch.flatten(self.avgpool(x), 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features_of(x))


class MaxPoolTo2x2(nn.MaxPool2d):
    """2x2 max pooling that leaves maps of 3x3 and smaller alone.

    At 16x16 input the fourth pool would leave 1x1 maps, where eight of the nine taps of every 3x3
    weight only ever meet padding: their gradient is zero whatever the method, and recorded masks
    would show that and not the method. From 32x32 up this is the ordinary pool.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x if min(x.shape[-2:]) < 4 else super().forward(x)


class VGG16BN(nn.Module):
    """CIFAR VGG-16-BN: 13 convolutions, one linear classifier, fifth pool is a global average."""

    classifier_name = "classifier"

    def __init__(self, classes: int) -> None:
        super().__init__()
        modules: list[nn.Module] = []
        channels = 3
        for width in VGG16_CHANNELS:
            if width == "M":
                modules.append(MaxPoolTo2x2(2, 2))
                continue
            conv = nn.Conv2d(channels, width, 3, 1, 1)
            modules += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        self.features = nn.Sequential(*modules)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(512, classes)

    def features_of(self, x: Tensor) -> Tensor:
        """Input of the classifier, [batch, 512]."""
        return torch.flatten(self.avgpool(self.features(x)), 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features_of(x))


def conv_bn_relu6(channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1):
    """Convolution without bias, batch norm, ReLU6; `same` padding."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Expand (1x1), depthwise (3x3), project (1x1, no activation); shortcut when shapes agree."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels_in * expansion
        modules: list[nn.Module] = []
        if expansion != 1:
            modules.append(conv_bn_relu6(channels_in, hidden, 1))
        modules.append(conv_bn_relu6(hidden, hidden, 3, stride, groups=hidden))
        modules.append(nn.Conv2d(hidden, channels_out, 1, bias=False))
        modules.append(nn.BatchNorm2d(channels_out))
        self.conv = nn.Sequential(*modules)
        self.use_res_connect = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 1.0 with CIFAR strides; 1280 features, no dropout before the classifier."""

    classifier_name = "classifier"

    def __init__(self, classes: int) -> None:
        super().__init__()
        modules: list[nn.Module] = [conv_bn_relu6(3, 32, 3)]
        channels = 32
        for expansion, width, blocks, stride in MOBILENETV2_STAGES:
            for block in range(blocks):
                modules.append(InvertedResidual(channels, width, stride if block == 0 else 1, expansion))
                channels = width
        modules.append(conv_bn_relu6(channels, 1280, 1))
        self.features = nn.Sequential(*modules)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(1280, classes)

    def features_of(self, x: Tensor) -> Tensor:
        """Input of the classifier, [batch, 1280]."""
        return torch.flatten(self.avgpool(self.features(x)), 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features_of(x))


def initialise(model: nn.Module) -> None:
    """He initialisation (fan out) of convolutions, as torchvision does for all three networks."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def build(network: str, classes: int) -> nn.Module:
    """A freshly initialised network; weights come from torch's global generator."""
    constructors = {"resnet18": ResNet18, "vgg16_bn": VGG16BN, "mobilenetv2": MobileNetV2}
    if network not in constructors:
        raise ValueError(f"unknown network {network!r}; known: {', '.join(NETWORKS)}")
    model = constructors[network](classes)
    initialise(model)
    return model


def classifier_of(model: nn.Module) -> nn.Linear:
    """The task's classifier head."""
    return getattr(model, model.classifier_name)


def replace_classifier(model: nn.Module, classes: int) -> None:
    """Put a new, randomly initialised head of `classes` outputs on the network."""
    head = nn.Linear(classifier_of(model).in_features, classes)
    setattr(model, model.classifier_name, head)


def masked_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights that carry masks: those of every convolution, by parameter name, in forward order."""
    return {f"{name}.weight": module.weight for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
