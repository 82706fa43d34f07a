/** Generated from csk_sdk/contract/thresholds.json: change it there, and run `make contract`. */

/** What label check goes by. docs/decisions/0015-label-check.md. */
export const LABEL_CHECK = {
  /** Below this share of the way from chance to perfect, nothing worth keeping was learned. */
  useful: 0.2,
  /** Labels at least that useful are refused at most this often. */
  level: 0.01,
  /** Share of the mean feature energy that the ridge adds. */
  ridge: 0.3,
  /** Of each class, every fold holds as many as any other, so that chance stays chance: leaving out single images would tell their classes by what is missing. */
  folds: 10,
  /** More make the answer no clearer, and the solve is cubic in them. */
  mostImages: 1024,
  /** Of images that are all the same to the network, labels tell nothing, and that is as sure as of so many images. */
  certain: 10000,
} as const;

/** What projection goes by. docs/decisions/0032-upgrade.md. */
export const PROJECTION = {
  /** A site whose second moment is this on the diagonal is never trained: nothing that comes later adds up to a rounding of it. */
  frozen: 1e30,
} as const;

/** What twins goes by. docs/decisions/0033-honest-report.md. */
export const TWINS = {
  /** A new class is the twin of an old one where the shares of each that look more like the other are together above this. */
  confused: 0.5,
  /** And above so many over the root of the new class's images more: of 20, shares are known to a tenth. */
  noise: 1,
  /** And where so much of the old class would be called the new one. Where that is all, the two are called hard to tell. */
  taken: 0.08,
  /** Fewer tell nothing of a twin. */
  leastImages: 10,
  /** Where two logits are no further apart, rounding decides: of an old class that is taught again with the very same images, all are taken. */
  even: 0.001,
  /** Made-up features over all old classes, for their accuracy. */
  madeUp: 1000,
  /** Made-up features of the old class that a new one is nearest to. */
  ofClass: 400,
  /** Share of the degrees of freedom that the discriminant is taken to use, at most: of hardly any images the rest would be nothing. */
  mostUsed: 0.5,
} as const;

/** What not told goes by. docs/decisions/0033-honest-report.md. */
export const NOT_TOLD = {
  /** Below this mean share of right decisions over all classes a lesson is warned of. */
  allClasses: 0.2,
  /** Where the task's own decision has at least this one. */
  task: 0.6,
} as const;

/** What one image goes by. docs/decisions/0019-few-shot.md. */
export const ONE_IMAGE = {
  /** Of a class: with so many, heads name the task's images right within five percentage points of what 100 give. */
  advised: 20,
} as const;

/** What novelty goes by. docs/decisions/0015-label-check.md. */
export const NOVELTY = {
  /** From this out-of-distribution score on a task is called unfamiliar; 1 is what the known images have. */
  unfamiliar: 1.25,
  /** Share by which the covariance is drawn towards no correlation. */
  shrinkage: 0.02,
  /** What never varies, such as a unit that is always zero, gets this share of the mean variance. */
  leastVariance: 1e-6,
  /** A covariance from fewer fits them too closely to judge others. */
  imagesPerFeature: 10,
  /** The score is a mean over images: so many tell it well enough, and no more are in memory as float64. */
  mostImages: 128,
} as const;

/** What gain goes by. docs/decisions/0035-train.md. */
export const GAIN = {
  /** Standard errors that the mean gain in log-likelihood of held-out images must be above 0 for training to go on. */
  sure: 2,
  /** What that gain must come to by the end of training, if it goes on at the rate of the first steps. */
  worth: 0.05,
  /** So many held-out images tell it, beside a discriminant of as many that were trained on. */
  mostImages: 1000,
} as const;

/** What forgetting goes by. docs/decisions/0016-max-forgetting.md. */
export const FORGETTING = {
  /** Standard deviations of made-up features, over those of the statistics: images that were never trained on are farther from their class's mean. */
  width: 1.5,
  /** Made-up features per old task: a change of a percentage point is then seen to half a point. */
  samples: 2000,
  /** So many of them are in memory at once. */
  atOnce: 250,
  /** What is added to each feature's own variance, as a share of it, so that the covariance is regular. */
  moreVariance: 1e-6,
  /** What is added to the variance of each score that is drawn, as a share of it: so little that two that are one stay so. */
  moreOfScores: 1e-12,
  /** How often ten times more is tried where that does not do. */
  attempts: 6,
} as const;

/** What known classes goes by. docs/decisions/0017-known-classes.md. */
export const KNOWN_CLASSES = {
  /** An image counts at most so often: a single wrong one must not outweigh what hundreds said. */
  most: 20,
  /** Above this share of a known class's new images that look like another one, they contradict what is known. */
  contradiction: 0.5,
  /** Of fewer nothing is said. */
  leastImages: 5,
  /** How far from a class's mean images that look like its own may lie, squared, over what its own do: CIFAR-100's own are at 0.84 to 1.23, those with noise of 20 grey levels at 1.41 and more, inverted digits at 11. */
  familiar: 1.3,
  /** Share of the degrees of freedom that the discriminant is taken to use, at most: images that it was not made of lie further, by one over the square of what is left. */
  mostUsed: 0.5,
} as const;

/** What upgrade goes by. docs/decisions/0032-upgrade.md. */
export const UPGRADE = {
  /** Where less of the variance of a head's logits goes over by the base images' way back, the head is fitted anew to its old logits, on what is known of the classes. */
  tells: 0.97,
  /** Of so many more images without any correlation the covariance is then made. */
  priorImages: 10,
  /** Where new features are told by a map, this share of each one's variance is taken for noise besides: the base's images do not show all that the map leaves of other classes. */
  unseen: 0.01,
} as const;

/** What contributions goes by. docs/decisions/0030-ledger.md. */
export const CONTRIBUTIONS = {
  /** Of the spread of a class in one task, directions of the largest are kept as they are. */
  directions: 32,
  /** What these leave is mixed, with random signs, into so many more. */
  mixtures: 32,
  /** So many more wait, beside what is kept of a class, before they become directions. */
  atOnce: 32,
} as const;

/** What fleet goes by. docs/decisions/0034-fleet.md. */
export const FLEET = {
  /** What fewer images of a class in a lesson contributed stays on the device, by default: it says too much of each. */
  leastImages: 20,
  /** Rows of a contribution in a file, at most. */
  mostRows: 256,
  /** No lesson has more of a class: a device that claims so is set aside. */
  mostImages: 1000000,
  /** A class that fewer hold cannot be checked against others: it is listed as unconfirmed. */
  holders: 3,
  /** A device's mean of a class is far from another's above this share of the squared distance that lies between two classes as a rule. */
  far: 0.5,
  /** A spread of so many times the usual variance is none of the same features. */
  wide: 8,
  /** So many times the images that devices usually have of a class are not believed. */
  many: 100,
  /** Two classes look like one thing below this share of the squared distance that lies between two as a rule. */
  alike: 0.12,
  /** Contributions, of all classes alike, that the covariance within classes is estimated of, to compare devices. */
  sampled: 256,
  /** Means of one class that are compared with all others of it at once. */
  meansAtOnce: 512,
  /** What never varies, such as a unit that is always zero, gets this share of the mean variance. */
  leastVariance: 1e-6,
  /** Rows of one class that wait, while a fleet's are put together, before they become directions. */
  atOnce: 512,
} as const;

/** What stopping goes by. docs/decisions/0022-plateau.md. */
export const STOPPING = {
  /** An epoch whose mean loss is not below the best one's by this share has brought nothing. */
  leastFall: 0.01,
} as const;

/** What calibration goes by. docs/decisions/0024-probabilities.md. */
export const CALIBRATION = {
  /** Never surer than the discriminant itself. */
  lowest: 1,
  /** Never so unsure that nothing is said. */
  highest: 100,
  /** Each image is judged by a discriminant of those of the other folds. */
  folds: 5,
  /** Halvings of the interval, on a logarithmic scale. */
  halvings: 40,
} as const;

/** What discriminant goes by. docs/decisions/0020-features-of-layers.md. */
export const DISCRIMINANT = {
  /** How many uncorrelated images the covariance within classes begins with. */
  priorImages: 100,
} as const;

/** What unknown goes by. docs/decisions/0029-unknown.md. */
export const UNKNOWN = {
  /** Share of known images that may be called unknown, by default. */
  reject: 0.05,
  /** A feature counts as no further off: one alone must not decide. */
  mostSquared: 4,
  /** Share of known images that are not odd at all. */
  usualShare: 0.94,
  /** What of the exponent an image gets that is twice as odd as usual. */
  steepness: 4.5,
  /** Numbers kept of each class, of its margins and of its oddness. */
  quantiles: 32,
  /** No margin is taken for less, as a share of the usual one, so that distances stay finite. */
  leastMargin: 1e-6,
  /** What never varies, such as a unit that is always zero, gets this share of the mean variance. */
  leastVariance: 1e-6,
  /** Rounding must not make an image all that is known around it: at least this share is others'. */
  leastLeft: 1e-9,
  /** So many are judged at once: their rows are float64, and as long as the features. */
  imagesAtOnce: 256,
} as const;

/** What covariance goes by. docs/decisions/0016-max-forgetting.md. */
export const COVARIANCE = {
  /** Rounding of a sum of squares, in units of float64's, as a share of that sum: what a difference of sums may be off by. */
  roundings: 8,
  /** Up to this share as many rows as features stand for a covariance; else it is the whole matrix. */
  thin: 0.25,
  /** What such rows may leave of a feature's variance, as a share of it: rounding. */
  left: 1e-13,
} as const;

/** What drift goes by. docs/decisions/0006-following-the-drift.md. */
export const DRIFT = {
  /** Share of the mean feature energy that pulls towards no drift where the task's images say nothing. */
  ridge: 0.01,
  /** Images whose unexplained movement is kept. */
  movements: 512,
} as const;

/** What head goes by. docs/decisions/0005-heads.md. */
export const HEAD = {
  /** Of a task's own head, on standardised features. */
  weightDecay: 0.01,
  /** Of the fit in the metric of what is known, on features whose covariance within classes is the identity. */
  knownDecay: 0.1,
  /** Of a task's own head, what of it is that fit: so much of its logits. */
  knownShare: 0.6666666666666666,
  /** The fit ends where the gradient's norm has fallen to this share of its first value. */
  tolerance: 0.0001,
  /** Steps of the fit, at most. */
  iterations: 200,
  /** A feature whose deviation is at most this share of the largest, or of its own mean, carries nothing, and gets weight 0. */
  leastDeviation: 1e-6,
  /** Steps that the fit remembers, and tells the curvature by. */
  memory: 10,
  /** How steep the loss may rise behind a step of the fit, as a share of how it fell in front; else the step is halved. */
  overshoot: 0.8,
  /** Memory for the features that a head is fitted on. */
  sampleBytes: 33554432,
  /** Features of a task's images as they were are kept while centers are trained where they take at most this memory; else the images are looked at again. */
  beforeBytes: 2097152,
} as const;

/** What mirroring goes by. docs/decisions/0005-heads.md. */
export const MIRRORING = {
  /** Up to so many a task's images are looked at mirrored, too, for its own head. */
  enough: 200,
} as const;

/** What importance goes by. docs/decisions/0039-gradient-share.md. */
export const IMPORTANCE = {
  /** Channels are ranked by the images that this share of the gradient comes from: squares of gradients are nearly all theirs. */
  selectionShare: 0.5,
} as const;

/** What warm up goes by. docs/decisions/0023-the-head-that-training-starts-from.md. */
export const WARM_UP = {
  /** A head that is fitted on fewer images than features tells them apart by accidents, and training follows these. */
  imagesPerFeature: 4,
  /** The learning rate rises over half an epoch, and over no more than so many steps. */
  mostSteps: 50,
} as const;

/** What probe goes by. docs/decisions/0010-int8.md. */
export const PROBE = {
  /** Noise that stands in for a device's data has so much of their contrast: few numbers leave the ranges that int8 was calibrated for. */
  contrast: 0.5,
  /** Pixels of images that nobody has measured: the middle of their range. */
  level: 127.5,
  /** The contrast of such images, as most photographs have it. */
  spread: 64,
} as const;

/** What limits goes by. */
export const LIMITS = {
  /** A million classes; what Python and JavaScript both read in seconds. */
  manifestBytes: 8388608,
  /** What all tensors of a graph may claim together, one image at a time. */
  tensorNumbers: 17179869184,
  /** Of an input, far above any camera, and far below what exhausts a device. */
  inputNumbers: 67108864,
  /** Of a layer, far above any classifier's. */
  kernelNumbers: 2147483648,
  /** What every file system takes as a folder's name, since a task's name is that of its folder in the inbox. */
  nameBytes: 255,
} as const;

/** What domains goes by. docs/decisions/0038-domains.md. */
export const DOMAINS = {
  /** Of fewer, means and deviations of channels say more of the images than of their domain. */
  leastImages: 32,
  /** More make the statistics of a domain no better: of 64 images they were as good as of 500. */
  mostImages: 512,
  /** What a channel's deviation is multiplied by at most: one that says nothing in a domain would be noise made loud. */
  mostScale: 8,
  /** Under the deviation of a channel that says the same of all images, so that nothing is divided by zero. */
  leastDeviation: 1e-12,
  /** How far apart the images of a domain and those that are known must lie, along the direction that tells them best: nearer, one image in six would be seen through the wrong domain. */
  told: 2,
  /** What a feature's variance among what is known is taken for at least, in its variances among a domain's images: one that known images hardly show would else tell alone. Of 32 images it is hardly ever off by so much. */
  leastVariance: 0.5,
  /** Where most of a domain's images are told to be of another already, it must bring them at least so much nearer to what is known, in times their distance as they are seen now: a second one of the same look does not. */
  nearer: 0.98,
  /** A domain that brings its images no nearer to what is known, and leaves a larger share of them unlike all of it, is of one class or of other things: of one class it was at least 0.43, and in looks of all classes, where it helped, at most 0.27. */
  strange: 0.35,
  /** Where a larger share of a domain's images is still unlike all that is known once it was learned, its user is asked of what they are: of known things it was up to 0.3, of one class alone or of other things at least 0.8. */
  unlike: 0.5,
  /** Each image is held against all of them, and goes through the network once more for one of them. */
  most: 16,
} as const;

/** What state goes by. docs/decisions/0037-blocks.md. */
export const STATE = {
  /** Tasks that lie further back have a block of their own once so many classes are together: commits write less the smaller a block is, and openings read fewer files the larger. */
  blockClasses: 128,
} as const;
