/** Runs one step in a worker thread and posts its ids; with `terminated`, keeps stepping until it is ended from outside. */
import { parentPort, workerData } from 'node:worker_threads';
import { cpuSubjects } from '../kernels/subjects.ts';
import { stepOf } from '../support/steps.ts';
import { tinyProgram } from '../support/tiny-program.ts';

const backend = cpuSubjects()
  .find(({ skip }) => skip === false)!
  .create();
const model = await backend.load(tinyProgram({ layers: 8 }), {
  cache: { blockSize: 16, blockCount: 80 },
  computeType: 'float32',
  maxTokens: 1024,
  maxSequences: 4,
  maxPositions: 1024,
});
const runner = model.createRunner({ threads: 2 });
const tokenIds = Array.from({ length: 1000 }, (_, i) => i % 50);
const blocks = [...tokenIds.keys()].slice(0, 64);
const step = () => runner.run(stepOf([{ tokenIds, cachedLength: 0, blocks }], 16));
const { tokenIds: ids } = await step();
parentPort!.postMessage([...ids]);
while (workerData.terminated) await step();
await model.close();
