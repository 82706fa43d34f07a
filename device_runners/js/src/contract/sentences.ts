/** Generated from csk_sdk/contract/sentences.json: change it there, and run `make contract`. */

export const SENTENCES = {
  labelsLookWrong:
    "The labels of task '{task}' look wrong: a classifier fitted to the other {noun}s names one left out correctly in {accuracy} % of cases, and guessing in {chance} %. Check that each class holds its own {noun}s; if they are right, learn it with labelCheck: false. Nothing was committed.",
  otherScale:
    "With this task's signals classes would spread {score} times as wide in the network's features as now: they are in another unit or scale than those that the bundle was built with, or some are broken. Learned, they would cover what is known. Bring them to that scale (16-bit samples are divided by 32768), and repair or remove broken ones. Nothing was committed.",
  unfamiliar:
    "these {noun}s are unlike all that the model knows (out-of-distribution score {score}: so many times as far from the nearest class as its own {noun}s are): expect little, and check the {noun}s and the bundle's preprocessing. Where another camera, light or weather is why, adapt to it first: `csk-sdk adapt`, or `Learner.adapt` (docs/domains.md).",
  forgetsTooMuch:
    "Learning '{task}' would cost '{worst}' about {points} percentage points of accuracy, more than the {allowed} that maxForgetting allows: lower learningRate or channelRatio, raise energy, or pass onForgetting: 'heads-only'. Nothing was committed.",
  headsInstead:
    "what was trained would have cost '{worst}' about {points} percentage points of accuracy, more than the {allowed} of maxForgetting: it was dropped, and the new classes have heads on the network as it was. A lower learningRate or a higher energy may do better.",
  twinApart:
    "'{new}' cannot be told from '{old}': {taken} % of '{old}' would be called '{new}', and {back} % of '{new}' look more like '{old}'. Decisions over all classes leave '{new}' out; only its task's own decision has it. If both are the same thing, merge them ({merge}); if not, maxForgetting: 100 counts it all the same.",
  twinCounted:
    "'{new}' cannot be told from '{old}': {taken} % of '{old}' will be called '{new}', and {back} % of '{new}' look more like '{old}'. If both are the same thing, merge them ({merge}).",
  hardToTell:
    "'{new}' is hard to tell from '{old}': about {taken} % of '{old}' will be called '{new}'. More {noun}s of both help; if both are the same thing, give them one name.",
  twinRefused:
    "Task '{task}' teaches '{new}', which cannot be told from '{old}': {taken} % of '{old}' would be called '{new}', and {back} % of '{new}' look more like '{old}'. If both are the same thing, teach it as '{old}'; if not, maxForgetting: 100 counts it all the same. Nothing was committed.",
  notTold:
    "among all classes only {everywhere} % of the task's images would be named right, though {task} % are among its own: the model's features hardly tell these classes from known ones. Check that the bundle's mean and std are the model's, and that its base data are what the model was trained on.",
  oneImage:
    'there is one {noun} only of {names}: how often that is recognised cannot be estimated, and is likely seldom. {advised} or more of each class are advised.',
  alike:
    '{pairs} cannot be told apart by these {noun}s: most look as much like the other. Check that each class holds its own {noun}s; if two are the same thing, give them one name.',
  headsDomains:
    'domains are known on this device, and each is of the network as it is: the backbone stays as it is, and the classes have heads on it.',
  exportDomains:
    "the exported model sees all images as the base's: what was learned of the domains {domains} is not part of it.",
  domainNoGraphs:
    '{bundle} has no graphs for domains: build it again, with base data and for classes of images or signals.',
  domainName:
    "A domain cannot be called {name}: its name must be plain text without slashes, backslashes and control characters, at most 255 bytes, and not 'base', which is how images look that the model was trained on. Give it another.",
  domainKnown: "Domain '{name}' is known already. Replace it with replace, or give the new one another name.",
  domainUnknown: "There is no domain '{name}'. Known: {known}.",
  domainMany:
    "Domain '{name}' would be one more than the {known} that a device can know: take one back first.",
  domainFew:
    "Domain '{name}' was given {images}, and takes at least {least}: of fewer, means say more of the images than of how they were taken.",
  domainNothingKnown:
    "Nothing is known here that images of domain '{name}' could be told from: build the bundle with base data, or learn a task with class statistics first.",
  domainAlike:
    "{images} for domain '{name}' look like those that are known already, and cannot be told from them: there is nothing to adapt to. Nothing was committed.",
  domainUnlike:
    '{unknown} % of these {noun}s are unlike all that is known, also as the domain shows them: it is right for {noun}s of classes that the base knows, a fair mix of them. Where these were others, take the domain back.',
  domainNoNearer:
    "Seen as domain '{name}' would show them, {images} are no nearer to what is known than they are seen now: take images of classes that the base knows, a fair mix of them, in one look that is not known yet. Nothing was committed.",
  fewShot:
    "{each} a class: too few for training to gain much. The backbone stays frozen, and the classes have heads on it. train: '{trained}' with more epochs, or with fewShot: 0, trains all the same.",
  headsPay:
    "training would not pay: after steps with {done} % of the summed learning rates of all steps, heads name {after} % right of {images} held out, {before} % without it, and gain {likelihood} nats. The backbone stays frozen; train: '{trained}' trains all the same.",
  headsUntold:
    "of {images}, none could be held out that would tell whether training pays: the backbone stays frozen. More images, or a smaller batchSize, may leave some; train: '{trained}' trains all the same.",
  undecided:
    'the time that seconds gives ({seconds} s) was over after {done} of {steps} steps, before it could be told whether training pays: what these have trained is {fate}.',
  begunWithCenters:
    'an earlier build of csk-sdk began this lesson and trained the centers, as was its default: it went on like that, and whether training pays was not asked.',
  centersPay:
    'training pays: after steps with {done} % of the summed learning rates of all steps, heads name {after} % right of {images} held out, {before} % without it, and gain {likelihood} nats. The {trained} are trained.',
  centersDropped:
    'training seemed to pay: after steps with {done} % of the summed learning rates of all steps, heads name {after} % right of {images} held out, {before} % without it, and gain {likelihood} nats. The {trained} were trained, and dropped in the end: older tasks would have lost more than maxForgetting allows.',
  centersCost:
    'training would cost too much: after steps with {done} % of the summed learning rates of all steps, heads gain {likelihood} nats on {images} held out, and an older task has lost {lost} percentage points of accuracy, on the way to more than the {allowed} that maxForgetting allows. The backbone stays frozen.',
  trainsOther:
    'train is {asked}, and {bundle} was built to train {trained}: take {trained}, auto or heads, or build it again with --sites {sites}.',
  flopsUnknown:
    'flops is set, and this bundle does not say what a step costs: build it again, or leave flops out.',
  flopsTooFew: 'flops is {flops}, and one step of {batch_size} costs {each}: allow more.',
  contradicts:
    "Task '{task}' contradicts what is known: {found}{more}. If what is known is wrong, learn the task with {replace}{stays}; if it is right and these are {noun}s of another kind, with {add}; if the task is wrong, correct it. Nothing was committed.",
  contradictsOne: "{share} % of its {noun}s of '{name}' look like '{other}'",
  contradictsMore: ', and so do those of {classes}',
  contradictsBase: " (what the base knows of '{name}' counts on)",
  oneClass:
    "Task '{task}' has one class only ('{name}'), and nothing is known that it could be told from: {remedy}.",
  oneClassCounted: 'learn it with class statistics ({setting})',
  oneClassBeside:
    'put its other classes beside it, learn a task of several classes first, or build the bundle with --base-data',
  carriedDomains:
    'What was learned of the domains {domains} is left behind, since it is of the old network: adapt to them again.',
  carriedTogether:
    "'{task}' was carried over by an upgrade, together with {others}, in one generation: there is none that ends with it. {back} takes the upgrade back, and {rollback} leads to what it brought.",
  forgetWhat: 'Name classes to forget, or a task.',
  forgetLast:
    "No class would be known any more, and a device that knows none can name nothing: learn another first. Or delete the state's folder: all that was learned there goes with it.",
  classNotKnown: "No class '{name}' is known. Known: {known}.",
  taskNotLearned: "Task '{task}' is not learned. Learned: {learned}.",
  baseStays: "The base is the bundle's, and cannot be forgotten; its classes can be hidden, one by one.",
  classOfBase: "Class '{name}' is one of the base, which is the bundle's, and cannot be {done}.",
  classKnownAlready: "Class '{name}' is known already: {merge} makes one class of two.",
  classTwin:
    "A class cannot be called '{name}' beside '{other}', which differs only in case, spaces at its ends or how accents are stored: they would share the answers. Call it something else, or make one class of two: {merge}.",
  className:
    "A class cannot be called '{name}': its name must be of 1 to {longest} characters, in valid UTF-8 and without control characters.",
  mergeItself: "Class '{name}' cannot be merged with itself.",
  notRemoved:
    '{path} holds what is to be forgotten, and could not be removed: check that it can be written there, and do it again.',
  remainsMoments:
    'the second moments of the trained layers, which are sums over all images, and protect what was learned',
  remainsCenters: 'what training has moved in the kernels, and with it how all features drifted',
  remainsSpread: 'the spread that all classes share: not all of it is kept class by class',
  remainsSketch:
    'how clearly, and how far from all, images of classes learned later lay: quantiles, measured when the forgotten were known',
  remainsBase: 'the bundle, which is signed as it is: classes of the base are hidden, and not forgotten',
  remainsBefore:
    'the state of before the last upgrade, {state}, to which `csk-sdk upgrade --back` leads: remove it together with {bundle}, and what it knows is gone, and so is the way back',
  remainsFleet:
    "what the fleet knows, in which this device's images count until a file is applied that was merged without them",
  fleetName: "a device cannot be called '{name}': give another name.",
  fleetLeast: 'least is {given}, and must be a whole number of images, 1 or more.',
  fleetBits: 'bits is {given}, and must be {few} or {many}.',
  fleetNothing: 'There is nothing to export: {why}',
  fleetNoTask: 'this device has learned no task.',
  fleetElsewhere: 'all that was learned was replaced, or is known from elsewhere.',
  fleetLacking: "'{name}' of task '{task}' stays here: its contribution cannot be read ({reason}).",
  fleetApart:
    "'{name}' of task '{task}' stays here: it takes no part in decisions among all classes, since it could not be told from another class, and nothing is kept of it.",
  fleetFew:
    "'{name}' of task '{task}' stays here: of {images} it would say too much, and {least} are the least.",
  fleetSaid:
    '{reason}. It says who this device is to its fleet, and which contributions it has taken back: restore it from a backup, or remove it; a device without a key is another one then.',
  fleetUnreadable: '{path} cannot be read as a .cskc file ({reason}).',
  fleetFile: '{path}: {wrong}. Get it again from where it was made.',
  fleetDamaged: '{path} is damaged: what it holds is not what it says. Get it again.',
  fleetNone: "it is no file of a fleet's contributions",
  fleetChecksum: 'it is damaged: its checksum does not match',
  fleetNoJson: 'what it says is no JSON ({reason})',
  fleetNewer: 'it takes a csk-sdk that reads schema {schema} of such files, and this one reads {own}',
  fleetUnsigned: 'its signature does not match',
  fleetTwice: 'it has two statements of one device',
  fleetOtherStatement: 'it has a statement about another bundle',
  fleetBoth: 'it is merged, and has statements of devices',
  fleetNoName: 'it has a name that is none',
  fleetClassTwice: 'it has a class twice, or one with a name that is none',
  fleetMissing: 'bytes that it lists are missing',
  fleetTooLarge: 'it has a contribution of {bytes} bytes',
  fleetCircle: "it says that '{name}' is another class, which is '{name}' again",
  statementNoJson: "a device's statement is no JSON ({reason})",
  statementNone: "a device's statement is not one: {wrong}",
  statementNoName: "a device's statement has a name that is none",
  statementHalf: "a device's statement has half a signature",
  statementOtherDevice: "a device's statement is of another device than its key",
  statementUnsigned: 'the signature of device {device} does not match what it is of',
  contributionShort: 'a contribution of {bytes} bytes is none',
  contributionOther: 'a contribution is not one over {features} features',
  contributionNotFinite: 'numbers that are not finite',
  contributionImages: '{count} images',
  contributionTooLarge: 'numbers too large for features',
  contributionMiscounted: '{images} where the contribution has {found}',
  fleetSignedOther:
    '{path} is signed by another key, and this device takes only what was signed by {trust}. Merge with `--sign KEY`.',
  fleetSignedNone:
    '{path} is signed by nobody, and this device takes only what was signed by {trust}. Merge with `--sign KEY`.',
  fleetOtherBundle:
    '{path} is of bundle {theirs}…, and this device has {own}…: take the file that was merged for this bundle.',
  fleetOdd: "{path} has {wrong} of class '{name}': merge the devices' files again.",
  fleetNoClass: '{path} knows no class: there is nothing to apply.',
  fleetBaseName:
    "{path} calls '{name}' '{other}', and '{name}' is one of the base, which keeps its name: merge again with `--same {other}={name}`.",
  fleetTwin:
    "{path} has a class '{name}', and there is one called '{other}' here, which differs only in case, spaces or accents: merge again with `--same {name}={other}`.",
  fleetUnledgered:
    'What a fleet knows cannot be added here, since {reason}: a csk-sdk that kept no contributions has learned on this device. Begin a new state, or go back before that with {rollback}.',
  fleetLed:
    "This device has trained its network: what the fleet knows, measured under the bundle's own, is led over by how features have drifted, which is nearly, and not exactly, what its network would see.",
  fleetWaiting:
    'It lacks {contributions} of this device, counted beside it: of too few images, learned since the export, never exported, or set aside.',
  fleetRenamed:
    '{names} of this device is called otherwise in it, since it was exported before it was renamed here: export, merge and apply again.',
  fleetAlike:
    "'{new}' of the fleet and '{mine}' look like one thing: if they are, merge the fleet's files again with `--same {new}={mine}`.",
} as const;
