/** What the scheduler knows of a model: steps go in, sampled tokens come out. */
export type { Runner as Forward } from '#kernels/backend.ts';
export type { SamplingInputs, StepInputs, StepOutputs } from '#kernels/step.ts';
