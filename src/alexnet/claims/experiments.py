"""Every claim of the paper, at a scale, in the order of a report.

Facts 0, 5 and 6 say which networks of 2012 the paper's numbers came from, and what else differed.
"""

from collections.abc import Iterable
from dataclasses import replace

from alexnet.claims.checks import make_checks
from alexnet.claims.claim import Arm, Check, Claim, varied_fields
from alexnet.claims.scales import SMALL, Scale, Setup, halve, make_arm, merge_towers
from alexnet.errors import ConfigError, did_you_mean
from alexnet.spec import Conv, PixelFormat, Spec
from alexnet.variants import PAPER, with_dropout, with_lrn, without_layer, without_overlap

COMMON_STDEV = 74.0  # grey levels: of ImageNet's red channel; division by it is the usual scaling


def make_claims(scale: Scale = SMALL) -> tuple[Claim, ...]:
    """Return every claim that is trained for, in the order of a report."""
    claims = (
        relu(scale),
        *lrn(scale),
        *lrn_as_printed(scale),
        overlap(scale),
        *dropout(scale),
        *augmentation(scale),
        *colour(scale),
        *depth(scale),
        *towers(scale),
        *initial_weights(scale),
        *units_alive(scale),
    )
    return tuple(
        replace(claim, seeds=scale.more_seeds.get(claim.name, scale.seeds)) for claim in claims
    )


def make_claims_and_checks(scale: Scale = SMALL) -> tuple[Claim | Check, ...]:
    """Return every claim: those that are trained for, and the arithmetic."""
    return *make_claims(scale), *make_checks()


def select_claims(
    claims: Iterable[Claim | Check], names: Iterable[str]
) -> tuple[Claim | Check, ...]:
    """Return the claims, or groups of claims, of some names; all where there is none.

    Raises `ConfigError` when there is no such claim, with the nearest name.
    """
    claims, names = tuple(claims), tuple(names)
    known = dict.fromkeys(name for claim in claims for name in (claim.group, claim.name))
    for name in names:
        if name not in known:
            raise ConfigError(f"No claim is called {name!r}.", did_you_mean(name, known))
    return tuple(c for c in claims if not names or c.group in names or c.name in names)


def relu(scale: Scale) -> Claim:
    """Section 3.1 and Figure 1."""
    tanh = replace(scale.four.spec, activation="tanh")
    arms = (make_arm("tanh", scale.four, tanh), make_arm("ReLU", scale.four))
    first, second = (replace(arm, trial_epochs=scale.trial_epochs) for arm in arms)
    rates = scale.learning_rates
    first = replace(first, learning_rates=scale.tanh_learning_rates or rates)
    second = replace(second, learning_rates=rates, expected_epochs=scale.relu_epochs)
    chosen_by = (
        f"the lowest training error after {scale.trial_epochs:g} passes"
        if scale.trial_epochs
        else "the fewest passes"
    )
    if scale.four.spec.dense:
        subject, origin = "The whole network", "The paper's number is of four layers, on CIFAR-10."
    else:
        subject = "A four-layer network"
        origin = (
            "The paper does not say which network; this is cuda-convnet's layers-19pct, three "
            "convolutions and the output, without weight decay."
        )
    return Claim(
        name="relu",
        group="relu",
        section="3.1, Figure 1",
        sentence=f"{subject} with ReLUs reaches 25 % training error six times sooner than the same "
        "network with tanh units, each at its own best rate and without regularisation.",
        paper="6 times sooner, CIFAR-10",
        first=first,
        second=second,
        switch="the activation",
        varied=frozenset({"spec.activation"}),
        measure="epochs_to_25",
        measure_text="passes over the images until 25 % training error",
        is_fraction=False,
        ratio=True,
        paper_effect=6.0,
        min_effect=3.0,
        all_images=True,
        note=f"{origin} Error as trained, mean over the last epoch's updates. Each arm's rate is "
        f"that with {chosen_by} of runs with another seed.",
    )


def lrn(scale: Scale) -> tuple[Claim, ...]:
    """Section 3.3."""
    plain = scale.plain
    names = [conv.name for conv in plain.spec.convs]
    base = Claim(
        name="lrn",
        group="lrn",
        section="3.3",
        sentence="Local response normalisation lowers the test error.",
        paper="1.4 points top-1, 1.2 top-5, ILSVRC, everything else equal but for the same-map "
        "norm, which went with it (facts 0)",
        first=make_arm("without LRN", plain, plain.spec.with_layers(*names, norm=None)),
        second=make_arm("with LRN", plain),
        switch="LRN after conv1 and conv2",
        varied=frozenset({"spec.convs.norm"}),
        paper_effect=0.014,
    )
    local = scale.with_lrn
    if scale.without_lrn is None or local is None:
        return (base,)
    of_local = [conv.name for conv in local.spec.convs]
    first, second = make_arm("as without", scale.without_lrn), make_arm("as with", local)
    confounded = replace(
        base,
        name="lrn-confounded",
        group="lrn-confounded",
        first=first,
        second=second,
        varied=varied_fields(first, second),
        confounded=True,
    )
    if scale.without_lrn.recipe == local.recipe:  # the full network: norms alone went
        return base, replace(
            confounded,
            sentence="The network of 2012 has a lower test error than without any normalisation.",
            paper="1.4 points top-1, 1.2 top-5, ILSVRC: nets 145 and 148 (facts 0)",
            switch="LRN, and the same-map norm after conv2, which the paper does not mention",
        )
    confounded = replace(
        confounded,
        sentence="A four-layer network has 13 % test error on CIFAR-10 without local response "
        "normalisation and 11 % with it.",
        paper="13 % to 11 %, CIFAR-10; four things changed at once (facts 6)",
        switch="LRN, maps of local3, weight decay of fc10, length of the training",
        paper_effect=0.02,
        note="As published: the 11 % network has twice the maps in local3, 2.5 times the weight "
        "decay in its output and trains some three times as long.",
    )
    clean = replace(
        base,
        name="lrn-local",
        group="lrn-confounded",  # whose clean form it is
        sentence="In the 11 % network, local response normalisation alone lowers the test error.",
        paper="no number of its own: the clean form of 13 % to 11 %",
        first=make_arm("without LRN", local, local.spec.with_layers(*of_local, norm=None)),
        second=make_arm("with LRN", local),
        paper_effect=None,
    )
    return (base, confounded) if local == plain else (base, confounded, clean)


def lrn_as_printed(scale: Scale) -> tuple[Claim, ...]:
    """Section 3.3 where the source of 2012 did otherwise (facts 1b)."""
    five = scale.five
    as_run, printed = ("norm", "pool", "activation"), PAPER.convs[0].order
    order = Claim(
        name="lrn-order",
        group="lrn-order",
        sentence="LRN after the ReLU of conv1, as published, against before pool and ReLU, as "
        "the source of 2012 ran it.",
        paper="no number; 0.11 points top-1 for the order of the source (facts 2, net 131)",
        section="3.3, facts 1b",
        first=make_arm("as published", five, five.spec.with_layers("conv1", order=printed)),
        second=make_arm("as run", five, five.spec.with_layers("conv1", order=as_run)),
        switch="the order of what follows conv1",
        varied=frozenset({"spec.convs.order"}),
        paper_effect=0.0011,
    )
    span = replace(
        order,
        name="lrn-span",
        group="lrn-span",
        sentence="LRN over all maps of the layer, as published, against those of its own tower, as "
        "the source of 2012 ran it.",
        paper="no number",
        first=make_arm("as published", five, with_lrn(five.spec, span="layer")),
        second=make_arm("as run", five, with_lrn(five.spec, span="tower")),
        switch="whether LRN crosses the towers",
        varied=frozenset({"spec.convs.norm.span"}),
        paper_effect=None,
    )
    alpha = replace(
        span,
        name="lrn-alpha",
        group="lrn-alpha",
        sentence="An alpha of 1e-4 for each map, as published, against the same divided by the "
        "five maps of the window, as the source of 2012 ran it.",
        first=make_arm("as published", five, with_lrn(five.spec, alpha=5e-4)),
        second=make_arm("as run", five, with_lrn(five.spec, alpha=1e-4)),
        switch="alpha",
        varied=frozenset({"spec.convs.norm.alpha"}),
    )
    return order, span, alpha


def overlap(scale: Scale) -> Claim:
    """Section 3.4."""
    plain = scale.plain
    shrunk = without_overlap(plain.spec)
    padded = shrunk.convs[1].padding != plain.spec.convs[1].padding
    fields = {"spec.convs.pool.kernel_size"}
    if padded:
        fields |= {"spec.convs.padding", "spec.convs.pool.ceil_mode"}
    return Claim(
        name="overlap",
        group="overlap",
        section="3.4",
        sentence="Overlapping pooling, 3 pixels wide every 2, has a lower test error than 2 every "
        "2.",
        paper="0.4 points top-1, 0.3 top-5, ILSVRC",
        first=make_arm("2/2", plain, shrunk),
        second=make_arm("3/2", plain),
        switch="the width of the pools",
        varied=frozenset(fields),
        paper_effect=0.004,
        note="Padding and rounding keep the last map at 6x6, as in net 147 of 2012." * padded,
    )


def depth(scale: Scale) -> tuple[Claim, ...]:
    """Section 7."""
    five = scale.five
    shorter = {name: without_layer(five.spec, name) for name in ("conv3", "conv4", "conv5")}

    def without(name: str) -> Claim:
        numbered = _renumber(shorter[name])
        same = [other for other, spec in shorter.items() if _renumber(spec) == numbered]
        twins = [other for other in same if other != name]
        return Claim(
            name=f"depth-{name}",
            group="depth",
            section="7",
            sentence=f"Without {name} the test error is higher.",
            paper="about 2 points top-1 for any middle layer, ILSVRC",
            # The names of layers are part of a run's key: twins under one name are trained once.
            first=make_arm(f"without {name}", five, shorter[same[0]]),
            second=make_arm("whole", five),
            switch=name,
            varied=frozenset({"spec.convs"}),
            paper_effect=0.02,
            note=f"At this scale the network without {twins[0]} is the same one: count it once."
            if twins
            else "",
        )

    return tuple(map(without, shorter))


def _renumber(spec: Spec) -> tuple[Conv, ...]:
    """Return the convolutions of a network, numbered anew."""
    return tuple(replace(conv, name=f"conv{n}") for n, conv in enumerate(spec.convs, 1))


def towers(scale: Scale) -> tuple[Claim, ...]:
    """Section 3.2."""
    five = scale.five
    base = Claim(
        name="towers",
        group="towers",
        section="3.2",
        sentence="Two towers have a lower test error than one with half the maps.",
        paper="1.7 points top-1, 1.2 top-5, ILSVRC",
        first=make_arm("one half", five, halve(five.spec)),
        second=make_arm("two towers", five),
        switch="one tower's maps or both",
        varied=frozenset({"spec.towers", "spec.convs.out_channels"}),
        paper_effect=0.017,
        note="As in the paper, the half network keeps conv5 and the fully-connected layers whole, "
        "which favours it.",
    )
    full = replace(
        base,
        name="towers-full",
        sentence="One tower in which every map sees all maps before it, against two that meet in "
        "conv3 and the fully-connected layers alone.",
        paper="no number",
        first=make_arm("two towers", five),
        second=make_arm("one full", five, merge_towers(five.spec)),
        switch="whether maps are divided between towers",
        varied=frozenset({"spec.towers"}),
        paper_effect=None,
        note="The full network has more weights in conv2, conv4 and conv5.",
    )
    return base, full


def dropout(scale: Scale) -> tuple[Claim, ...]:
    """Section 4.2."""
    constant = "At a constant rate, so that no schedule decides when either arm converges."

    def make_arms(setup: Setup, suffix: str = "") -> tuple[Arm, Arm]:
        none, half = (with_dropout(setup.spec, rate=rate) for rate in (0.0, 0.5))
        return make_arm(f"none{suffix}", setup, none), make_arm(f"0.5{suffix}", setup, half)

    setup = scale.dropout
    at_constant_rate = setup.recipe.schedule == "milestones" and not setup.recipe.milestones
    without, with_it = make_arms(setup)
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
        note=constant if at_constant_rate else "",
    )
    gap = replace(
        base,
        name="dropout-gap",
        sentence="Without dropout the network overfits substantially: its test error lies further "
        "above its training error.",
        measure="gap",
        measure_text="test error less training error, both without dropout",
    )
    if scale.dropout_steps:
        without, with_it = make_arms(scale.dropout_steps, " at a constant rate")
    elif not at_constant_rate:
        return base, gap
    steps = replace(
        base,
        name="dropout-steps",
        sentence="Dropout roughly doubles the iterations until the network converges.",
        paper="about 2 times, ILSVRC",
        first=with_it,
        second=without,
        measure="epochs_to_converge",
        measure_text="passes until the test error is within 2 points of its lowest",
        is_fraction=False,
        ratio=True,
        paper_effect=2.0,
        min_effect=1.5,
        note=constant,
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
        first=make_arm("centre alone", plain, crop="centre", mirror=False),
        second=make_arm("crops and mirrors", plain, crop="random", mirror=True),
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
        first=replace(base.second, name="one view", measure="test_error"),
        second=replace(base.second, name=f"{views} views", measure=f"test_error_{views}_views"),
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
        first=make_arm("no colour noise", plain, pca_jitter=0.0),
        second=make_arm("standard deviations", plain, pca_jitter=noise),
        switch="the colour noise",
        varied=frozenset({"recipe.pca_jitter"}),
        paper_effect=0.01,
    )
    literal = replace(
        base,
        name="pca-eigenvalues",
        group="pca-eigenvalues",
        section="4.1, facts 4",
        sentence="The axes' lengths are the eigenvalues, as printed, not their roots, as run.",
        paper="no number; the source of 2012 used standard deviations",
        first=make_arm("eigenvalues", plain, pca_jitter=noise, pca_axes="eigenvalues"),
        second=make_arm("standard deviations", plain, pca_jitter=noise),
        switch="the lengths of the axes",
        varied=frozenset({"recipe.pca_axes"}),
        paper_effect=None,
        note="The claim here is that the printed form is a slip: eigenvalues of pixels of 0-255 "
        "shift colours by hundreds of grey levels.",
    )
    copied = replace(
        base,
        name="pca-copied",
        group="pca-copied",
        section="4.1, facts 4",
        sentence="Colour noise as it is usually copied, with spreads 2, 7 and 15 times too small, "
        "against that of 2012.",
        paper="no number; the constants are later than the paper",
        first=make_arm("copied constants", plain, pca_jitter=noise, pca_axes="copied"),
        second=make_arm("standard deviations", plain, pca_jitter=noise),
        switch="the lengths and directions of the axes",
        varied=frozenset({"recipe.pca_axes"}),
        paper_effect=None,
        note="(.2175, .0188, .0045) are eigenvalues of ImageNet's pixels of 0-1; times 255 they "
        "are taken for standard deviations in many implementations, on any images.",
    )
    return base, literal, copied


def initial_weights(scale: Scale) -> tuple[Claim, ...]:
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
        first=make_arm("0.01 everywhere", five, replace(scale.printed, name=five.spec.name)),
        second=make_arm("0.03 in conv3 to conv5", five),
        switch="the initial weights of conv3 to conv5",
        varied=frozenset({"spec.convs.std"}),
    )
    pixels = replace(
        base,
        name="init-pixels",
        sentence="Pixels of 0-255 less the mean image, as in 2012, against the same divided by "
        "their standard deviation, as is usual today.",
        first=make_arm("normalised", five, replace(five.spec, pixels=usual)),
        second=make_arm("raw", five),
        switch="the scale of the pixels",
        varied=frozenset({"spec.pixels.scale"}),
        note="At the paper's rate and initial weights: the question is whether they train.",
    )
    both = replace(
        base,
        name="init-both",
        sentence="What the paper prints and usual pixels together, against the source of 2012.",
        first=make_arm(
            "0.01, normalised", five, replace(scale.printed, name=five.spec.name, pixels=usual)
        ),
        second=make_arm("0.03, raw", five),
        switch="the initial weights of conv3 to conv5 and the scale of the pixels",
        varied=frozenset({"spec.convs.std", "spec.pixels.scale"}),
        confounded=True,
        note="Two switches at once, as in implementations whose authors gave up the paper's rule.",
    )
    return base, pixels, both


def units_alive(scale: Scale) -> tuple[Claim, ...]:
    """Section 5: which hidden units are never active, and which always."""
    five = scale.five
    layers = (*(conv.name for conv in five.spec.convs), *(one.name for one in five.spec.dense))
    ones = [name for name in layers if five.spec.layer(name).bias == 1]
    zeros = make_arm("biases of 0", five, five.spec.with_layers(*ones, bias=0.0))
    base = Claim(
        name="alive-first",
        group="alive",
        section="5",
        sentence="Biases of 1 keep the units of the first fully-connected layer alive when the "
        "training begins: with 0, more of them are active for no image.",
        paper="no number: positive inputs accelerate early learning",
        first=zeros,
        second=make_arm("biases of 1", five),
        switch="the initial biases where the paper has 1",
        varied=frozenset({"spec.convs.bias", "spec.dense.bias"}),
        measure="never_active_before",
        measure_text="units that no test image activates, before the training",
    )
    last = replace(
        base,
        name="alive-last",
        sentence="The same when the training ends.",
        measure="never_active",
        measure_text="units that no test image activates, after the training",
    )
    rate = replace(
        last,
        name="alive-rate",
        section="facts 3c",
        sentence="A rate three times as high leaves more units that are active for no image.",
        paper="no number",
        first=make_arm("three times the rate", five, lr=3 * five.recipe.lr),
        second=make_arm("the rate", five),
        switch="the learning rate",
        varied=frozenset({"recipe.lr"}),
    )
    always = replace(
        base,
        name="alive-always",
        section="5, facts 1b and 3c",
        sentence="With the .01 that the paper prints, more units are active for every image when "
        "the training begins: their biases decide, and no image makes a difference.",
        paper="no number",
        first=make_arm("0.01 everywhere", five, replace(scale.printed, name=five.spec.name)),
        second=make_arm("0.03 in conv3 to conv5", five),
        switch="the initial weights of conv3 to conv5",
        varied=frozenset({"spec.convs.std"}),
        measure="always_active_before",
        measure_text="units that every test image activates, before the training",
    )
    return base, last, rate, always
