"""Random weights with which a network's scores depend on every layer."""

import torch
from torchvision.models.resnet import BasicBlock, Bottleneck


def calibrated(network, picture):
    """The network in evaluation mode, with weights for ReLU and batch norms that have seen `picture`."""
    for module in network.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # statistics become the mean over all batches
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.LayerNorm)):
            torch.nn.init.uniform_(module.weight, 0.8, 1.2)
            torch.nn.init.uniform_(module.bias, -0.3, 0.3)
    # What a residual block adds is little, as in trained networks; else errors of rounding grow from
    # block to block until torch differs from itself, with other threads, by 1e-4.
    for module in network.modules():
        if isinstance(module, (BasicBlock, Bottleneck)):
            last = module.bn2 if isinstance(module, BasicBlock) else module.bn3
            torch.nn.init.uniform_(last.weight, 0.2, 0.4)
    network.train()
    with torch.no_grad():
        network(picture)
    return network.eval()
