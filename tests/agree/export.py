"""Exports torchvision's networks to ONNX, with seeded calibrated weights and torch's own outputs.
Runs under Debian's /usr/bin/python3; writes index.json for agree.py."""

import argparse
import json
import pathlib

import calibrate
import numpy
import torch
import torchvision

NETWORKS = {
    "alexnet": 224, "vgg16": 224, "resnet18": 224, "resnet50": 224, "googlenet": 224,
    "inception_v3": 299, "squeezenet1_1": 224, "densenet121": 224, "mobilenet_v2": 224,
    "shufflenet_v2_x1_0": 224,
}
# Torch 1.13 cannot export `chunk` of a tensor whose batch is open.
FIXED_BATCH = ["shufflenet_v2_x1_0"]


def pictures(count, name):
    """Pictures [count, 3, H, W] that differ as photographs do: each has a colour of its own. Of mere
    noise, a network that ends in an average says nearly the same about every picture."""
    return torch.randn(count, 3, 1, 1) + torch.randn(count, 3, NETWORKS[name], NETWORKS[name])


def build(name):
    """The network with random weights whose batch norms have seen data, in evaluation mode."""
    torch.manual_seed(sum(name.encode()))
    options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    network = getattr(torchvision.models, name)(weights=None, **options)
    return calibrate.calibrated(network, pictures(4, name))


def scaled(network, name):
    """Scales the last layer so that the scores deviate by about 1; refuses dead networks."""
    with torch.no_grad():
        scores = network(pictures(2, name))
    deviation = float(scores.std())
    if not 1e-12 < deviation < 1e12:
        raise SystemExit(f"{name}: scores deviate by {deviation}")
    last = network.classifier[1] if name == "squeezenet1_1" else [
        m for m in network.modules() if isinstance(m, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight /= deviation
        if last.bias is not None:
            last.bias /= deviation
    return network


def write_model(network, name, opset, batch, path):
    """One ONNX file; a batch of None stays open."""
    axes = {"image": {0: "batch"}, "logits": {0: "batch"}} if batch is None else None
    torch.onnx.export(network, pictures(batch or 1, name), path, opset_version=opset,
                      input_names=["image"], output_names=["logits"], dynamic_axes=axes)


def export(network, name, opset, batches, folder):
    """The network with an open batch, and per batch an input and torch's output."""
    if name in FIXED_BATCH:
        models = {batch: folder / f"{name}-{opset}-{batch}.onnx" for batch in batches}
        for batch, path in models.items():
            write_model(network, name, opset, batch, path)
    else:
        models = dict.fromkeys(batches, folder / f"{name}-{opset}.onnx")
        write_model(network, name, opset, None, models[batches[0]])
    entries = []
    for batch in batches:
        torch.manual_seed(batch)
        image = pictures(batch, name)
        with torch.no_grad():
            logits = network(image)
        stem = folder / f"{name}-{batch}"
        numpy.save(f"{stem}-image.npy", image.numpy())
        numpy.save(f"{stem}-logits.npy", logits.numpy())
        entries.append({"model": str(models[batch]), "network": name, "opset": opset,
                        "batch": batch, "inputs": {"image": f"{stem}-image.npy"},
                        "outputs": {"logits": f"{stem}-logits.npy"}})
    return entries


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--opsets", default="9,11,13,16")
    parser.add_argument("--batches", default="1,4")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    index = []
    for name in arguments.networks.split(","):
        network = scaled(build(name), name)
        for opset in map(int, arguments.opsets.split(",")):
            batches = [int(b) for b in arguments.batches.split(",")]
            index += export(network, name, opset, batches, arguments.folder)
    (arguments.folder / "index.json").write_text(json.dumps(index, indent=1))


if __name__ == "__main__":
    main()
