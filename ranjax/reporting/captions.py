"""What the page says under its headings, in plain words."""

FINDINGS = (
    "▲ above, ▼ below, ○ no difference shown. Methods are compared on the same images (paired); everything "
    "else is called different only where two 95 % intervals lie apart, which is the stricter reading. Worded "
    "here: what the attack and the upstream noise do to the linear probe, what works without a head, and RAN "
    "against each other method in domain at the highest noise ratio."
)

CURVES = (
    "Each line is one method on the frozen encoder, from no noise upstream (left) to the most (right). Bars "
    "are 95 % intervals; the points of one ratio stand slightly apart so that the bars can be told from each "
    "other. Panels of one row share their vertical axis, which does not start at zero; the axis of attacked "
    "images is another one than that of clean images."
)

COMPARISONS = (
    "Each bar is the 95 % interval of a difference between two methods, taken on the same test images. A bar "
    "that touches the upright line means that no difference is shown. Right of the line the first method is "
    "higher."
)

MAIN_TABLES = (
    "Value and 95 % interval. A value is set in bold only where its whole interval lies beyond those of every "
    "other method in the same column at the same noise ratio; where nothing is bold, no method stands out."
)

WITHOUT_HEAD = (
    "What image and text encoder do together, without any head. R@k is the share of queries whose own partner "
    "is among the k nearest. The last line is what guessing would give."
)

SPECTRA = (
    "Singular values of the feature matrix as shares of their sum, largest first, on a logarithmic axis. A "
    "flat line means that the features use many directions, a steep one that few carry them. SVE is the "
    "entropy of these shares (higher: flatter), LSVR is minus the logarithm of the first one (higher: less "
    "dominated by a single direction)."
)

MASKING = (
    "An attack that fails for a technical reason makes a model look robust. The checks ask whether the attack "
    "behaves as a working one must: stronger settings do more harm, a huge budget breaks everything, and a "
    "borrowed attack never beats a direct one."
)

PAIRS = (
    "Radiographs of the noisy upstream set, with the twin that took their place. The attack changes the "
    "picture too little to be seen, so the difference is magnified; mid grey is no change. In the report, "
    "words that the attack took out are struck through, and those it put in follow the arrow."
)

RECONSTRUCTION = (
    "This is the project's own reconstruction of the study, from the lines of work that it continues. No number "
    "on this page is the paper's."
)

LEAD = (
    "Medical image and text encoders were pre-trained on data of which a part was replaced by adversarial "
    "twins, then frozen and adapted by several light-weight methods. This page shows what that noise does, "
    "and whether any of them repairs it."
)

COMPARE_CURVES = (
    "The same figure of each run, side by side on the same axes. Each line is one method, from no noise upstream "
    "(left) to the most (right); bars are 95 % intervals."
)

COMPARE_TABLES = (
    "Value and 95 % interval. Every run but the first is marked by how its interval lies to the first run's: ▲ above, "
    "▼ below, ○ overlapping, that is no difference shown. The runs are not paired, so this is a strict reading."
)
