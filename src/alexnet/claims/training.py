"""The claims about training: dropout, augmentation, colour, initial weights (sections 4 and 5)."""

from dataclasses import replace

from alexnet.claims.claim import Claim
from alexnet.claims.scale import Scale, arm_of
from alexnet.spec import PixelFormat

COMMON_STDEV = 74.0  # grey levels: of ImageNet's red channel; division by it is the usual scaling


def dropout(scale: Scale) -> tuple[Claim, ...]:
    """Section 4.2."""
    trained = scale.dropout
    none = replace(trained.spec, dropout=replace(trained.spec.dropout, rate=0.0))
    half_of_all = replace(trained.spec, dropout=replace(trained.spec.dropout, rate=0.5))
    without, with_it = arm_of("none", trained, none), arm_of("0.5", trained, half_of_all)
    base = Claim(
        name="dropout",
        group="dropout",
        section="4.2",
        sentence="Dropout of one half in the hidden fully-connected layers lowers the test error.",
        paper="no number",
        first=without,
        second=with_it,
        switch="the dropout rate",
        varied=frozenset({"spec.dropout.rate"}),
        note="At a constant rate, so that no schedule decides when either arm converges.",
    )
    gap = replace(
        base,
        name="dropout-gap",
        sentence="Without dropout the network overfits substantially: its test error lies further "
        "above its training error.",
        measure="gap",
        measured="test error less training error, both without dropout",
    )
    steps = replace(
        base,
        name="dropout-steps",
        sentence="Dropout roughly doubles the iterations until the network converges.",
        paper="about 2 times, ILSVRC",
        first=with_it,
        second=without,
        measure="epochs_to_converge",
        measured="passes until the test error is within 2 points of its lowest",
        share=False,
        ratio=True,
        paper_effect=2.0,
        enough=1.5,
    )
    return base, gap, steps


def augmentation(scale: Scale) -> tuple[Claim, ...]:
    """Section 4.1, the first form."""
    plain = scale.plain
    base = Claim(
        name="augment",
        group="augment",
        section="4.1",
        sentence="Random crops and mirror images in training lower the test error.",
        paper="no number: without them the network overfits substantially",
        first=arm_of("centre alone", plain, crop="centre", mirror=False),
        second=arm_of("crops and mirrors", plain, crop="random", mirror=True),
        switch="augmentation: crops and mirror images, which the paper counts as one",
        varied=frozenset({"recipe.crop", "recipe.mirror"}),
    )
    views = plain.recipe.test_crops
    several = replace(
        base,
        name="augment-views",
        sentence="The mean over several views of a test image has a lower error than its centre "
        "alone.",
        paper="39.0 to 37.5 % top-1, 18.3 to 17.0 top-5, ILSVRC-2010",
        first=replace(arm_of("one view", plain), measure="test_error"),
        second=replace(arm_of(f"{views} views", plain), measure=f"test_error_{views}_views"),
        switch="the views that are tested, of one and the same network",
        varied=frozenset({"measure"}),
        paper_effect=0.015,
    )
    return base, several


def colour(scale: Scale) -> tuple[Claim, ...]:
    """Section 4.1, the second form."""
    plain = scale.plain
    noise = plain.recipe.pca_jitter or 0.1
    base = Claim(
        name="pca",
        group="pca",
        section="4.1",
        sentence="Colour noise along the principal axes of the training set's colours lowers the "
        "test error.",
        paper="more than 1 point top-1, ILSVRC",
        first=arm_of("no colour noise", plain, pca_jitter=0.0),
        second=arm_of("standard deviations", plain, pca_jitter=noise),
        switch="the colour noise",
        varied=frozenset({"recipe.pca_jitter"}),
        paper_effect=0.01,
    )
    literal = replace(
        base,
        name="pca-eigenvalues",
        section="4.1, facts 4",
        sentence="The axes' lengths are the eigenvalues, as printed, not their roots, as run.",
        paper="no number; the source of 2012 used standard deviations",
        first=arm_of("eigenvalues", plain, pca_jitter=noise, pca_axes="eigenvalues"),
        second=arm_of("standard deviations", plain, pca_jitter=noise),
        switch="the lengths of the axes",
        varied=frozenset({"recipe.pca_axes"}),
        paper_effect=None,
        note="The claim here is that the printed form is a slip: eigenvalues of pixels of 0-255 "
        "shift colours by hundreds of grey levels.",
    )
    return base, literal


def beginnings(scale: Scale) -> tuple[Claim, ...]:
    """Section 5, facts 3c: does the paper's own way to train work?."""
    five = scale.five
    usual = PixelFormat(scale=1 / COMMON_STDEV)
    base = Claim(
        name="init",
        group="init",
        section="5, facts 1b and 3c",
        sentence="Weights of .03 in conv3 to conv5, as run, against the .01 that the paper prints "
        "for every layer.",
        paper="no number",
        first=arm_of("0.01 everywhere", five, replace(scale.printed, name=five.spec.name)),
        second=arm_of("0.03 in conv3 to conv5", five),
        switch="the initial weights of conv3 to conv5",
        varied=frozenset({"spec.convs.std"}),
    )
    pixels = replace(
        base,
        name="init-pixels",
        sentence="Pixels of 0-255 less the mean image, as in 2012, against the same divided by "
        "their standard deviation, as is usual today.",
        first=arm_of("normalised", five, replace(five.spec, pixels=usual)),
        second=arm_of("raw", five),
        switch="the scale of the pixels",
        varied=frozenset({"spec.pixels.scale"}),
        note="At the paper's rate and initial weights: the question is whether they train.",
    )
    both = replace(
        base,
        name="init-both",
        sentence="What the paper prints and usual pixels together, against the source of 2012.",
        first=arm_of(
            "0.01, normalised", five, replace(scale.printed, name=five.spec.name, pixels=usual)
        ),
        second=arm_of("0.03, raw", five),
        switch="the initial weights of conv3 to conv5 and the scale of the pixels",
        varied=frozenset({"spec.convs.std", "spec.pixels.scale"}),
        confounded=True,
        note="Two switches at once, as in implementations whose authors gave up the paper's rule.",
    )
    return base, pixels, both
