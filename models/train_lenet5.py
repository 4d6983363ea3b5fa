#!/usr/bin/python3
"""Trains LeNet-5 on Fashion-MNIST and writes lenet5.safetensors beside this script.

Needs Debian's python3-torch and dataset-fashion-mnist, and some minutes of one core.
The seed makes it repeatable on one machine with one version of PyTorch.
"""

import argparse
import gzip
import json
import pathlib
import struct
import time

import numpy
import torch
from torch import nn
from torch.nn import functional

DATA = pathlib.Path("/usr/share/datasets/fashion-mnist")
MEAN, STD = 0.2860, 0.3530  # of the training pixels / 255; the preset fashion-mnist has the same


def read_idx(name):
    """Unsigned bytes in the format of MNIST: a magic number, the dimensions, the data."""
    raw = gzip.open(DATA / name).read()
    rank = raw[3]
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    return torch.from_numpy(numpy.frombuffer(raw, numpy.uint8, offset=4 + 4 * rank).reshape(shape).copy())


def pictures(name):
    """N,1,32,32: black edges of two pixels around 28x28, then normalised."""
    padded = functional.pad(read_idx(name).float() / 255, (2, 2, 2, 2))
    return ((padded - MEAN) / STD).unsqueeze(1)


class LeNet5(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = functional.avg_pool2d(torch.tanh(self.conv1(x)), 2)
        x = functional.avg_pool2d(torch.tanh(self.conv2(x)), 2)
        x = torch.tanh(self.fc1(x.flatten(1)))
        return self.fc3(torch.tanh(self.fc2(x)))


def augment(batch):
    """Mirrors half of the pictures."""
    mirrored = torch.rand(len(batch)) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), batch.flip(3), batch)


def accuracy(model, x, y):
    model.eval()
    with torch.no_grad():
        return (torch.cat([model(part) for part in x.split(1000)]).argmax(1) == y).float().mean().item()


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, tensor in tensors.items():
        end = offset + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.detach().numpy().astype("<f4").tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--decay", type=float, default=1e-2)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("-o", default=pathlib.Path(__file__).with_name("lenet5.safetensors"))
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    x, y = pictures("train-images-idx3-ubyte.gz"), read_idx("train-labels-idx1-ubyte.gz").long()
    test_x, test_y = pictures("t10k-images-idx3-ubyte.gz"), read_idx("t10k-labels-idx1-ubyte.gz").long()
    model = LeNet5()
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=options.decay)
    steps = options.epochs * (len(x) // options.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, options.rate, steps, pct_start=0.2)
    start = time.time()
    for epoch in range(options.epochs):
        model.train()
        order = torch.randperm(len(x))[: len(x) // options.batch * options.batch]
        for chosen in order.split(options.batch):
            loss = functional.cross_entropy(model(augment(x[chosen])), y[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}: {accuracy(model, test_x, test_y):.2%} of the test pictures right, "
              f"{time.time() - start:.0f} s", flush=True)
    write_safetensors(options.o, model.state_dict())


if __name__ == "__main__":
    main()
