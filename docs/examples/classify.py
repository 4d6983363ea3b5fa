"""The same as classify.cpp, in Python.  classify.py [PICTURE [MODEL [WEIGHTS [PRESET]]]]"""

import sys

import lathe


def main(picture="boot.png", model="lenet5", weights=None, preset="fashion-mnist"):
    network = lathe.compile(model, weights=weights)
    pixels = lathe.read_picture(picture, preset, network.inputs[0].shape)
    scores = network(pixels)[0]
    for i in (-scores).argsort()[:3]:
        print(f"class {i}: {scores[i]:.3f}")


main(*sys.argv[1:])
