/** Generated from csk_sdk/contract/sentences.json: change it there, and run `make contract`. */

export const SENTENCES = {
  labelsLookWrong:
    "The labels of task '{task}' look wrong: a classifier fitted to the other {noun}s names one left out correctly in {accuracy} % of cases, and guessing in {chance} %. Check that each class holds its own {noun}s; if they are right, learn it with labelCheck: false. Nothing was committed.",
  unfamiliar:
    "these {noun}s are unlike all that the model knows (out-of-distribution score {score}: so many times as far from the nearest class as its own {noun}s are): expect little, and check the {noun}s and the bundle's preprocessing.",
  forgetsTooMuch:
    "Learning '{task}' would cost '{worst}' about {points} percentage points of accuracy, more than the {allowed} that maxForgetting allows: lower learningRate or channelRatio, raise energy, or pass onForgetting: 'heads-only'. Nothing was committed.",
  headsInstead:
    "the trained centers would have cost '{worst}' about {points} percentage points of accuracy, more than the {allowed} of maxForgetting: they were dropped, and the new classes have heads on the network as it was. A lower learningRate or a higher energy may do better.",
  fewShot:
    '{each} {noun}s a class are too few for training to gain much: the backbone stays frozen, and the classes have heads on it. More epochs, or fewShot: 0, train all the same.',
  flopsUnknown:
    'flops is set, and this bundle does not say what a step costs: build it again, or leave flops out.',
  flopsTooFew: 'flops is {flops}, and one step of {batch_size} costs {each}: allow more.',
} as const;
