"""What the page says under its headings, in plain words."""

FINDINGS = (
    "▲ above, ▼ below, ○ no difference shown. Methods are compared, and noise is held against none, on the same images "
    "(paired): a difference is shown where its interval is clear of 0 and its p, corrected over all of its kind "
    "(Holm), is below 0.05. The attack is judged by two intervals that lie apart, which is stricter. Worded here: what "
    "the attack and the upstream noise do to the linear probe, what works without a head, and RAN against the other "
    "heads in domain at the highest noise ratio."
)

CURVES = (
    "Each line is one method, from no noise upstream (left) to the most (right). Bars "
    "are 95 % intervals; the points of one ratio stand slightly apart so that the bars can be told from each "
    "other. Panels of one row share their vertical axis, which does not start at zero; the axis of attacked "
    "images is another one than that of clean images. Transferred attacks are made against the first method on the "
    "encoder without noise: at 0 % that is the encoder attacked, above it another one."
)

COMPARISONS = (
    "Each bar is the 95 % interval of a difference between two methods, taken on the same test images. A bar "
    "that touches the upright line means that no difference is shown. Right of the line the first method is "
    "higher. p is corrected over all comparisons of one metric (Holm), and a difference is called shown only where "
    "that is below 0.05, too; the effect is the mean difference of an image over its standard deviation."
)

MAIN_TABLES = (
    "Value and 95 % interval. A value is set in bold only where its whole interval lies beyond those of every "
    "other method in the same column at the same noise ratio; where nothing is bold, no method stands out."
)

WITHOUT_HEAD = (
    "What image and text encoder do together, without any head. R@k is the share of queries whose own partner "
    "is among the k nearest. By sentences, each image has several captions, and any of them is right for it; "
    "intervals are over images, those of what sentences find over images or wordings, whichever is wider. Whole "
    "reports of one wording are one query. The last lines are what guessing would give."
)

SPECTRA = (
    "Singular values of the feature matrix as shares of their sum, largest first, on a logarithmic axis that ends at "
    "1/100,000 of the largest: what lies below is mostly the rounding of 32-bit features, and is in the file. A flat "
    "line means that the features use many directions, a steep one that few carry them. SVE is the "
    "entropy of these shares (higher: flatter), LSVR is minus the logarithm of the first one (higher: less "
    "dominated by a single direction)."
)

MASKING = (
    "An attack that fails for a technical reason makes a model look robust. The checks ask whether the attack "
    "behaves as a working one must: stronger settings do more harm, a huge budget breaks everything, and a "
    "borrowed attack never beats a direct one."
)

PAIRS = (
    "Radiographs of the noisy upstream set, with the noisy pair that took their place: those whose loss the attack raised "
    "most (worst), those about the middle (typical), and those it changed least. The attack changes the "
    "picture little, so the difference is magnified; mid grey is no change. In the report, "
    "words that the attack took out are struck through, and those it put in follow the arrow."
)

RECONSTRUCTION = (
    "This is the project's own reconstruction of the study, from the lines of work that it continues. No number "
    "on this page is the paper's."
)

LEAD = (
    "Medical image and text encoders were pre-trained on data of which a part was replaced by adversarial "
    "noisy pairs, then frozen and adapted by several light-weight methods. This page shows what that noise does, "
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

CLAIMS = (
    "What the abstract claims, each by the figures that stand for it here, chosen by a fixed rule. ✓ shown: the whole "
    "95 % interval lies on the claimed side of 0 and p, corrected over this table (Holm), is below 0.05. ✗ the "
    "opposite is shown. ○ not shown: these data do not decide. Intervals of one run are over test images "
    "(patients, where several are of one) and heads; they do not cover what another upstream run would give, for which "
    "several runs are pooled (python -m ranjax report RUN RUN). The effect is the mean difference over its standard "
    "deviation."
)

FITTED = (
    "Hyper-parameters are chosen on the validation split by the same grid for every method: a factor on its learning "
    "rate and one on the weights of its own terms (on its weight decay, where it has none). Epochs are counted from 0, "
    "one a seed."
)

OVER_RUNS = (
    "These {runs} runs differ in their seed alone: another set of generated or split data, other initial weights, "
    "another order, other noisy pairs and, where labels are few, another choice of them. Each run counts as one observation; "
    "intervals and p are Student's over runs, so they say what another upstream run would give. Runs are taken to vary "
    "by their own sampling error at least. With two or three runs only large effects can be shown. The effect here is "
    "the mean over the standard deviation of runs, not of images."
)

RADII = (
    "White box, end to end through encoder and head; the worst of all attacks of this run, and what broke an image at "
    "a smaller radius counts at a larger one. Radius 0 is the same images and heads unattacked."
)

RELIABILITY = (
    "How often an answer is right (upwards) where the model states this confidence (rightwards), on clean test images "
    "of all heads together. On the dashed line confidence is honest; below it the model is too sure. The area of a "
    "mark is the share of answers in its bin, so that small marks stand for few and say little; bins of under 1 % are "
    "not drawn. The file holds every bin with its count (of all heads: divide by their number for images)."
)

CONFUSIONS = (
    "Each row is a true class and adds to 100 %: where its images went, over all heads. On the diagonal they are right."
)

PLANES = (
    "Each test image in the plane of the two directions in which clean features vary most: where it lies clean, where "
    "the attack on this method takes it, and the way between. The encoder's features are what the head gets; those of "
    "the head are what it classifies. Each panel has a plane of its own, so shapes compare, lengths do not."
)

GROUPS = (
    "Accuracy within groups of test images. The worst group is named beside its figure. As the least of several "
    "figures it lies low by chance alone, so compare methods, not the worst group with the mean. Its interval holds "
    "for the truly worst group, whichever that is: from the least lower end of all groups to their least upper end, "
    "the upper ones corrected for the number of groups."
)

CORRUPTIONS = (
    "Common corruptions in five strengths. mCE: errors summed over strengths, as a share of those of the linear probe "
    "on the clean encoder, mean over the kinds; lower is better, 100 is as that probe. Its interval is over test "
    "images, the heads' mean held fixed."
)

QUESTIONS = (
    "Questions answered by heads on the frozen embeddings of image and question: a set's own, open and closed as it "
    "says, or made from exact findings (closed: is there such a finding; open: which side, which lobe, how severe). "
    "The most frequent answer to the same question needs no image, and is what to beat; probes on the image alone "
    "and on the question alone show whether the other side is used."
)

ATTACKED_PAIRS = (
    "Retrieval among the attacked test pairs, which are also the gallery. Success has two definitions that share a "
    "name: R@1 lost is clean less attacked recall (Co-Attack), turned wrong is the share of the queries right before "
    "that are wrong after (SGA)."
)

EFFECTS = (
    "Differences on the same test images and head seeds. p is corrected over each table (Holm); a difference is called "
    "shown only with p below 0.05 and an interval clear of 0. One upstream run a condition is behind each figure."
)

ABLATION = (
    "RAN less RAN without one of its parts, in points of accuracy on the same test images and head seeds. ▲ the part "
    "helps, ▼ it hurts, ○ not shown, at 5 % after Holm's correction over this table; the p values are in its data."
)
