"""The claims about the network: its activation, norms, pools, depth and towers (sections 3 and 7).

Facts 0, 5 and 6 say which networks of 2012 the paper's numbers came from, and what else differed.
"""

from dataclasses import replace

from alexnet.claims.claim import Claim, varied_fields
from alexnet.claims.networks import half, one_tower
from alexnet.claims.scale import Scale, arm_of
from alexnet.spec import Spec
from alexnet.variants import PAPER, with_lrn, without_layer, without_overlap


def relu(scale: Scale) -> Claim:
    """Section 3.1 and Figure 1."""
    tanh = replace(scale.four.spec, activation="tanh")
    arms = (arm_of("tanh", scale.four, tanh), arm_of("ReLU", scale.four))
    more = {"rates": scale.rates, "trial_epochs": scale.trial_epochs}
    first, second = (replace(arm, **more) for arm in arms)  # type: ignore[arg-type]
    chosen_by = (
        f"the lowest training error after {scale.trial_epochs:g} passes"
        if scale.trial_epochs
        else "the fewest passes"
    )
    return Claim(
        name="relu",
        group="relu",
        section="3.1, Figure 1",
        sentence="A four-layer network with ReLUs reaches 25 % training error on CIFAR-10 six "
        "times sooner than the same network with tanh units, each at its own best rate and "
        "without regularisation.",
        paper="6 times sooner, CIFAR-10",
        first=first,
        second=second,
        switch="the activation",
        varied=frozenset({"spec.activation"}),
        measure="epochs_to_25",
        measured="passes over the images until 25 % training error",
        share=False,
        ratio=True,
        paper_effect=6.0,
        enough=3.0,
        whole=True,
        note="The paper does not say which network; this is cuda-convnet's layers-19pct, three "
        "convolutions and the output, without weight decay. Error as trained, mean over the last "
        f"epoch's updates. Each arm's rate is that with {chosen_by} of runs with another seed.",
    )


def normalisation(scale: Scale) -> tuple[Claim, ...]:
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
        first=arm_of("without LRN", plain, plain.spec.with_layers(*names, norm=None)),
        second=arm_of("with LRN", plain),
        switch="LRN after conv1 and conv2",
        varied=frozenset({"spec.convs.norm"}),
        paper_effect=0.014,
    )
    local = scale.with_lrn
    of_local = [conv.name for conv in local.spec.convs]
    first, second = arm_of("as without", scale.without), arm_of("as with", local)
    confounded = replace(
        base,
        name="lrn-confounded",
        first=first,
        second=second,
        varied=varied_fields(first, second),
        confounded=True,
    )
    if scale.without.recipe == local.recipe:  # the full network: norms alone went
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
        sentence="In the 11 % network, local response normalisation alone lowers the test error.",
        paper="no number of its own: the clean form of 13 % to 11 %",
        first=arm_of("without LRN", local, local.spec.with_layers(*of_local, norm=None)),
        second=arm_of("with LRN", local),
        paper_effect=None,
    )
    return (base, confounded) if local == plain else (base, confounded, clean)


def normalisation_as_printed(scale: Scale) -> tuple[Claim, ...]:
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
        first=arm_of("as published", five, _ordered(five.spec, printed)),
        second=arm_of("as run", five, _ordered(five.spec, as_run)),
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
        first=arm_of("as published", five, with_lrn(five.spec, span="layer")),
        second=arm_of("as run", five, with_lrn(five.spec, span="tower")),
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
        first=arm_of("as published", five, with_lrn(five.spec, alpha=5e-4)),
        second=arm_of("as run", five, with_lrn(five.spec, alpha=1e-4)),
        switch="alpha",
        varied=frozenset({"spec.convs.norm.alpha"}),
    )
    return order, span, alpha


def _ordered(spec: Spec, order: tuple[str, ...]) -> Spec:
    return spec.with_layers("conv1", order=order)


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
        first=arm_of("2/2", plain, shrunk),
        second=arm_of("3/2", plain),
        switch="the width of the pools",
        varied=frozenset(fields),
        paper_effect=0.004,
        note="Padding and rounding keep the last map at 6x6, as in net 147 of 2012." * padded,
    )


def depth(scale: Scale) -> tuple[Claim, ...]:
    """Section 7."""
    five = scale.five

    def without(name: str) -> Claim:
        return Claim(
            name=f"depth-{name}",
            group="depth",
            section="7",
            sentence=f"Without {name} the test error is higher.",
            paper="about 2 points top-1 for any middle layer, ILSVRC",
            first=arm_of(f"without {name}", five, without_layer(five.spec, name)),
            second=arm_of("whole", five),
            switch=name,
            varied=frozenset({"spec.convs"}),
            paper_effect=0.02,
        )

    return tuple(without(name) for name in ("conv3", "conv4", "conv5"))


def towers(scale: Scale) -> tuple[Claim, ...]:
    """Section 3.2."""
    five = scale.five
    base = Claim(
        name="towers",
        group="towers",
        section="3.2",
        sentence="Two towers have a lower test error than one with half the maps.",
        paper="1.7 points top-1, 1.2 top-5, ILSVRC",
        first=arm_of("one half", five, half(five.spec)),
        second=arm_of("two towers", five),
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
        first=arm_of("two towers", five),
        second=arm_of("one full", five, one_tower(five.spec)),
        switch="whether maps are divided between towers",
        varied=frozenset({"spec.towers"}),
        paper_effect=None,
        note="The full network has more weights in conv2, conv4 and conv5.",
    )
    return base, full
