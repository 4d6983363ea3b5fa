"""How far an engine's outputs are from the reference, and whether they prove anything."""

from dataclasses import dataclass

import numpy

TOLERANCE = 1e-4  # of the largest value: the accuracy that Lathe promises


@dataclass(frozen=True)
class Errors:
    """In terms of the reference's largest value."""
    largest: float
    rms: float


def scores(output, softmax):
    """A row per picture. A softmax hides errors: its logarithm less its mean is what stood before
    it, less its own mean."""
    rows = output.reshape(len(output), -1).astype(numpy.float64)
    if softmax:
        with numpy.errstate(divide="ignore", invalid="ignore"):
            rows = numpy.log(rows)
            rows -= rows.mean(axis=1, keepdims=True)
    return rows


def fault(rows):
    """Why such scores prove nothing; None if they may."""
    if not numpy.isfinite(rows).all():
        return "Inf, NaN or a saturated softmax in the outputs"
    largest = abs(rows).max()
    if rows.std(axis=1).min() < 1e-3 * largest or not largest:
        return "constant outputs"
    if len(rows) > 1 and abs(rows[0] - rows[1]).max() < 1e-2 * largest:
        return "the same outputs for different pictures"
    return None


def errors(found, reference, softmax):
    """ValueError, with the reason, for what cannot be compared or proves nothing."""
    if found.size != reference.size or len(found) != len(reference):
        raise ValueError(f"outputs of shape {found.shape}, not {reference.shape}")
    rows, expected = scores(found, softmax), scores(reference, softmax)
    for what in (expected, rows):
        if reason := fault(what):
            raise ValueError(reason)
    difference, largest = rows - expected, abs(expected).max()
    return Errors(float(abs(difference).max() / largest),
                  float(numpy.sqrt((difference ** 2).mean()) / largest))
