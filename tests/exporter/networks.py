"""torchvision's networks to export, and the same architectures with few and narrow layers."""

import pathlib
import sys
from functools import partial

import torch
import torchvision
from torch import nn
from torchvision import models
from torchvision.models import (convnext, densenet, efficientnet, inception, mobilenetv2, mobilenetv3,
                                regnet, resnet, shufflenetv2, squeezenet, swin_transformer, vgg,
                                vision_transformer)
from torchvision.models.googlenet import BasicConv2d, Inception
from torchvision.models.segmentation import deeplabv3, fcn, lraspp

sys.path.append(str(pathlib.Path(__file__).parents[1] / "agree"))
import calibrate  # noqa: E402

# Network and the side of its pictures; ViT is no convolutional network, but what a user may try.
CLASSIFIERS = {
    "alexnet": 224, "vgg11_bn": 224, "resnet18": 224, "resnet50": 224, "resnext50_32x4d": 224,
    "wide_resnet50_2": 224, "squeezenet1_0": 224, "squeezenet1_1": 224, "densenet121": 224,
    "googlenet": 224, "inception_v3": 299, "mobilenet_v2": 224, "mobilenet_v3_small": 224,
    "mobilenet_v3_large": 224, "shufflenet_v2_x0_5": 224, "shufflenet_v2_x1_0": 224,
    "mnasnet0_5": 224, "efficientnet_b0": 224, "efficientnet_v2_s": 224, "regnet_y_400mf": 224,
    "regnet_x_400mf": 224, "convnext_tiny": 224, "swin_t": 224, "swin_v2_t": 256, "vit_b_16": 224,
}
SEGMENTERS = {"lraspp_mobilenet_v3_large": 224, "deeplabv3_mobilenet_v3_large": 224,
              "fcn_resnet50": 224}


def classifier(name):
    # Their first initialisation takes minutes, and another follows.
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return models.get_model(name, weights=None, **options)


def segmenter(name):
    return models.get_model(name, weights=None, weights_backbone=None, num_classes=21)


# ---- narrow networks: each takes pictures of 3 channels ------------------------------------------

def with_head(*layers, width):
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))


def narrow_vgg():
    return with_head(vgg.make_layers([4, "M", 6, 6, "M"], batch_norm=True), width=6)


def narrow_resnet():
    def shortcut(planes, out, stride):
        return nn.Sequential(resnet.conv1x1(planes, out, stride), nn.BatchNorm2d(out))
    return with_head(
        nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        resnet.BasicBlock(4, 4), resnet.BasicBlock(4, 8, 2, shortcut(4, 8, 2)),
        resnet.Bottleneck(8, 2), resnet.Bottleneck(8, 4, 2, shortcut(8, 16, 2), groups=2,
                                                   base_width=64), width=16)


def narrow_squeezenet():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
                         squeezenet.Fire(4, 2, 3, 3), squeezenet.Fire(6, 2, 4, 4), nn.Dropout(),
                         nn.Conv2d(8, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def narrow_densenet():
    return densenet.DenseNet(2, (2, 2), 4, bn_size=2, num_classes=5)


def narrow_googlenet():
    return with_head(BasicConv2d(3, 4, kernel_size=3, stride=2), nn.MaxPool2d(3, 2, ceil_mode=True),
                     Inception(4, 2, 2, 4, 1, 2, 2), nn.MaxPool2d(2, 2, ceil_mode=True),
                     Inception(10, 3, 2, 3, 2, 2, 2), width=10)


class NarrowInception(nn.Module):
    """An inception block of torchvision's has many channels at least; so: what its blocks do."""

    def __init__(self):
        super().__init__()
        conv = inception.BasicConv2d
        self.one, self.row = conv(3, 4, kernel_size=1), conv(4, 3, kernel_size=(1, 7), padding=(0, 3))
        self.column = conv(3, 3, kernel_size=(7, 1), padding=(3, 0))
        self.down = conv(3, 4, kernel_size=3, stride=2)
        self.pool = conv(3, 2, kernel_size=1)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        first = x[:, 0].unsqueeze(1) * 0.458 - 0.03  # as transform_input does, by channel
        x = torch.cat((first, x[:, 1:] * 0.448 - 0.09), 1)
        seven = self.column(self.row(self.one(x)))
        pooled = self.pool(nn.functional.avg_pool2d(x, 3, stride=1, padding=1))
        x = torch.cat([seven, pooled, x], 1)
        x = torch.cat([self.down(x[:, :3]), nn.functional.max_pool2d(x, 3, stride=2)], 1)
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, (1, 1)), 1))


def narrow_mobilenet_v2():
    block = mobilenetv2.InvertedResidual
    return with_head(nn.Conv2d(3, 4, 3, 2, 1), block(4, 4, 1, 1), block(4, 6, 2, 3),
                     block(6, 6, 1, 2), width=6)


def narrow_mobilenet_v3():
    config = partial(mobilenetv3.InvertedResidualConfig, width_mult=1.0)
    return mobilenetv3.MobileNetV3(
        [config(8, 3, 8, 8, True, "RE", 2, 1), config(8, 5, 16, 8, True, "HS", 1, 1)], 16, num_classes=5)


def narrow_shufflenet():
    return shufflenetv2.ShuffleNetV2([1, 2, 1], [4, 8, 12, 16, 20], num_classes=5)


def narrow_mnasnet():
    return with_head(nn.Conv2d(3, 8, 3, 2, 1), *models.mnasnet.MNASNet(0.1, num_classes=5).layers[3:9],
                     width=8)


def narrow_efficientnet():
    config = partial(efficientnet.MBConvConfig, width_mult=1.0, depth_mult=1.0)
    return efficientnet.EfficientNet([config(1, 3, 1, 8, 8, 1), config(2, 5, 2, 8, 8, 2)], 0.2,
                                     stochastic_depth_prob=0.2, num_classes=5)


def narrow_efficientnet_v2():
    fused, block = efficientnet.FusedMBConvConfig, efficientnet.MBConvConfig
    return efficientnet.EfficientNet([fused(1, 3, 1, 4, 4, 1), fused(2, 3, 2, 4, 8, 1),
                                      block(2, 3, 2, 8, 8, 1)], 0.2, num_classes=5,
                                     norm_layer=partial(nn.BatchNorm2d, eps=1e-3), last_channel=16)


def narrow_regnet(se_ratio):
    parameters = regnet.BlockParams.from_init_params(3, 8, 8, 2, 8, se_ratio=se_ratio)
    return regnet.RegNet(parameters, num_classes=5, stem_width=4)


def narrow_convnext():
    block = convnext.CNBlockConfig
    return convnext.ConvNeXt([block(4, 6, 1), block(6, 8, 2), block(8, None, 1)], num_classes=5)


def narrow_swin(version):
    modern = version == 2
    return swin_transformer.SwinTransformer(
        [2, 2], 8, [2, 1], [2, 2], [4, 4], num_classes=5, mlp_ratio=2.0,
        block=swin_transformer.SwinTransformerBlockV2 if modern else None,
        downsample_layer=swin_transformer.PatchMergingV2 if modern else swin_transformer.PatchMerging)


def narrow_vit():
    return vision_transformer.VisionTransformer(16, 4, 2, 2, 8, 12, num_classes=5)


def narrow_fcn():
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))
    return fcn.FCN(Named(backbone), fcn.FCNHead(8, 3))


def narrow_deeplabv3():
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU())
    head = nn.Sequential(deeplabv3.ASPP(4, (2, 3), 4), nn.Conv2d(4, 3, 1))
    return deeplabv3.DeepLabV3(Named(backbone), head)


def narrow_lraspp():
    return lraspp.LRASPP(LowAndHigh(), 4, 6, 3, inter_channels=8)


class Named(nn.Module):
    """A backbone as segmentation wants it."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, x):
        return {"out": self.layers(x)}


class LowAndHigh(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 4, 1), nn.Conv2d(4, 6, 3, 2, 1)

    def forward(self, x):
        low = self.first(x)
        return {"low": low, "high": self.second(low.relu())}


# What makes it, and the side of its pictures.
NARROW = {
    "narrow_vgg": (narrow_vgg, 12), "narrow_resnet": (narrow_resnet, 20),
    "narrow_squeezenet": (narrow_squeezenet, 20), "narrow_densenet": (narrow_densenet, 16),
    "narrow_googlenet": (narrow_googlenet, 16), "narrow_inception": (NarrowInception, 10),
    "narrow_mobilenet_v2": (narrow_mobilenet_v2, 12), "narrow_mobilenet_v3": (narrow_mobilenet_v3, 16),
    "narrow_shufflenet": (narrow_shufflenet, 16), "narrow_mnasnet": (narrow_mnasnet, 12),
    "narrow_efficientnet": (narrow_efficientnet, 16),
    "narrow_efficientnet_v2": (narrow_efficientnet_v2, 16),
    "narrow_regnet_x": (partial(narrow_regnet, None), 16),
    "narrow_regnet_y": (partial(narrow_regnet, 0.25), 16),
    "narrow_convnext": (narrow_convnext, 16), "narrow_swin": (partial(narrow_swin, 1), 16),
    "narrow_swin_v2": (partial(narrow_swin, 2), 16),
    # 10 x 14 patches of two pixels: windows of 4 pad them.
    "narrow_swin_padded": (partial(narrow_swin, 1), (20, 28)), "narrow_vit": (narrow_vit, 16),
    "narrow_fcn": (narrow_fcn, 12), "narrow_deeplabv3": (narrow_deeplabv3, 12),
    "narrow_lraspp": (narrow_lraspp, 16),
}


def prepared(network, side):
    """Calibrated; what starts at zero or next to it gets values with which it counts."""
    height, width = side if isinstance(side, tuple) else (side, side)
    for name, value in network.named_parameters():
        if name.rsplit(".")[-1] in ("layer_scale", "relative_position_bias_table", "class_token"):
            nn.init.normal_(value, 0, 0.5)
    return calibrate.calibrated(network, torch.randn(4, 3, height, width)), (height, width)


def networks():
    """Of each network by name: what makes it and its pictures' height and width."""
    table = {name: (partial(classifier, name), side) for name, side in CLASSIFIERS.items()}
    table |= {name: (partial(segmenter, name), side) for name, side in SEGMENTERS.items()}
    return {name: partial(lambda make, side: prepared(make(), side), *row) for name, row in table.items()}


def narrow():
    return {name: partial(lambda make, side: prepared(make(), side), *row)
            for name, row in NARROW.items()}
