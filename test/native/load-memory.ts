/**
 * Loads a program whose weights lie in a file, and posts what the process grew by at its peak: run as a process of its own with
 * the path of the file to make and the storage type. Prints one line of JSON.
 */
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import type { StorageType, WeightSource } from '#kernels/program.ts';
import { storageBytes } from '#kernels/storage.ts';
import { cpuSubjects } from '../kernels/subjects.ts';
import { ProgramRecorder } from '../support/tiny-program.ts';
import { plainWeight } from '../support/weights.ts';

const [path, type] = process.argv.slice(2) as [string, StorageType];
const hidden = 1024;
/** 200 MB or so of each type: the process itself grows by some MB meanwhile. */
const layers = Math.floor(200e6 / 2 / storageBytes(type, [4 * hidden, hidden]));
const vocabularyRows = layers * 4 * hidden;

let fileBytes = 0;
function weightInFile(name: string, shape: readonly number[]): WeightSource {
  const byteLength = storageBytes(type, shape);
  const offset = fileBytes;
  fileBytes += byteLength;
  return { name, type, shape, bytes: { path, offset, byteLength } };
}

const record = new ProgramRecorder();
const x = record.tensor('x', hidden);
const last = record.tensor('last', hidden, 'logitRows');
const logits = record.tensor('logits', vocabularyRows, 'logitRows');
const embedding = plainWeight('embedding', [1, hidden], new Float32Array(hidden));
record.op({ op: 'embedding', weight: record.weight(embedding), out: x });
for (let layer = 0; layer < layers; layer++) {
  const up = record.tensor(`up${layer}`, 4 * hidden);
  const weight = record.weight(weightInFile(`up${layer}`, [4 * hidden, hidden]));
  record.op({ op: 'linear', x, weights: [weight], epilogue: 'none', out: up });
}
// The head comes last, when everything else is held already, and is half of the weights.
const head = record.weight(weightInFile('head', [vocabularyRows, hidden]));
record.op({ op: 'gatherRows', x, out: last });
record.op({ op: 'linear', x: last, weights: [head], epilogue: 'none', out: logits });
record.op({ op: 'sample', logits });

// A hole: zeros are weights of every type, and reading them takes memory as any page does.
writeFileSync(path, '');
truncateSync(path, fileBytes);

function memory(field: 'VmRSS' | 'VmHWM'): number {
  const kib = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(
    readFileSync('/proc/self/status', 'utf8'),
  )![1];
  return Number(kib) * 1024;
}

const backend = cpuSubjects()
  .find(({ skip }) => skip === false)!
  .create();
const before = memory('VmRSS');
const loaded = await backend.load(
  {
    name: 'load-memory',
    weights: record.weights,
    tensors: record.tensors,
    ops: record.ops,
    heads: 1,
    cache: { layers: 1, kvHeads: 1, headSize: 16 },
    vocabularyRows,
    validTokenCount: vocabularyRows,
  },
  {
    cache: { blockSize: 16, blockCount: 1 },
    computeType: 'auto',
    maxTokens: 16,
    maxSequences: 1,
    maxPositions: 16,
  },
);
const peak = memory('VmHWM') - before;
const { weightBytes, computeType } = loaded;
await loaded.close();
console.log(JSON.stringify({ peak, held: weightBytes, fileBytes, computeType }));
