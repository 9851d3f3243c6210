import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Forward, StepInputs, StepOutputs } from '#engine/model/forward.ts';
import type { VisionModel } from '#engine/model/vision.ts';
import { ImageEncoder } from '#engine/vision/encoder.ts';
import { ImageError } from '#engine/vision/errors.ts';
import { ImageWorkers } from '#engine/vision/image-workers.ts';
import { NVLM_TILING } from '#engine/vision/tiling.ts';

/** One patch a side and one embedding a tile: its embedding is the tile's first value. */
const model = {
  shape: { grid: 1, patchSize: 1, channels: 1 },
  factor: 1,
  shuffle: 'v2',
  tokensPerTile: 1,
  positionsPerTile: 2,
  featureSize: 1,
  encoded: 0,
  features: 1,
} as unknown as VisionModel;

class CountingForward {
  readonly steps: number[] = [];
  failNext = false;

  async run(inputs: StepInputs): Promise<StepOutputs> {
    this.steps.push(inputs.seqLens.length);
    await new Promise(setImmediate);
    if (this.failNext) {
      this.failNext = false;
      throw new Error('no memory');
    }
    return { tensors: [Float32Array.from(inputs.inputRows!)] } as unknown as StepOutputs;
  }
}

const tiles = (...values: number[]): Float32Array[] =>
  values.map((value) => Float32Array.of(value));
const encoderOf = (forward: CountingForward, cacheBytes = 1024) =>
  new ImageEncoder(model, forward as unknown as Forward, { maxTilesPerStep: 4, cacheBytes });

test('pictures that come together share steps, and none takes more tiles than the budget', async () => {
  const forward = new CountingForward();
  const encoder = encoderOf(forward);
  const made = await Promise.all([
    encoder.encode('a', tiles(1, 2, 3)),
    encoder.encode('b', tiles(4, 5, 6, 7, 8, 9)),
  ]);
  assert.deepEqual(
    made.map((one) => [...one]),
    [
      [1, 2, 3],
      [4, 5, 6, 7, 8, 9],
    ],
  );
  assert.deepEqual(forward.steps, [4, 4, 1]);
});

test('the same picture is encoded once, at the same time and later', async () => {
  const forward = new CountingForward();
  const encoder = encoderOf(forward);
  const [first, second] = await Promise.all([
    encoder.encode('a', tiles(1)),
    encoder.encode('a', tiles(1)),
  ]);
  assert.equal(first, second);
  assert.equal(await encoder.encode('a', tiles(1)), first);
  assert.deepEqual(forward.steps, [1]);
});

test('what is kept is bounded in bytes, and what was used last stays', async () => {
  const forward = new CountingForward();
  const encoder = encoderOf(forward, 8);
  await encoder.encode('a', tiles(1));
  await encoder.encode('b', tiles(2));
  assert.ok(encoder.find('a'));
  await encoder.encode('c', tiles(3));
  assert.equal(encoder.find('b'), undefined);
  assert.ok(encoder.find('a') && encoder.find('c'));
  assert.equal(encoder.keptBytes, 8);
});

test('a step that fails ends the pictures in it and no others', async () => {
  const forward = new CountingForward();
  forward.failNext = true;
  const encoder = encoderOf(forward);
  const results = await Promise.allSettled([
    encoder.encode('a', tiles(1, 2, 3, 4)),
    encoder.encode('b', tiles(5)),
  ]);
  assert.deepEqual(
    results.map(({ status }) => status),
    ['rejected', 'fulfilled'],
  );
  assert.deepEqual([...(await encoder.encode('a', tiles(1)))], [1]);
});

test('pictures are read by worker threads: a bad one is told, the next one is read', async () => {
  const workers = new ImageWorkers(1);
  const request = (bytes: Uint8Array) =>
    workers.prepare({
      bytes,
      limits: { maxBytes: 1 << 20, maxPixels: 1 << 20 },
      tiling: NVLM_TILING,
      detail: 'auto',
    });
  const gif = Buffer.from('R0lGODdhAQABAIAAAP///////ywAAAAAAQABAAACAkQBADs=', 'base64');
  try {
    const [bad, good] = await Promise.allSettled([
      request(Buffer.from('no picture')),
      request(gif),
    ]);
    assert.ok(bad.status === 'rejected' && bad.reason instanceof ImageError);
    assert.ok(good.status === 'fulfilled');
    assert.equal(good.value.tiles.length, 1);
    assert.equal(good.value.tiles[0]!.length, 3 * 448 * 448);
  } finally {
    await workers.close();
  }
});

test('a picture of more pixels than the limit is refused by its header', async () => {
  const workers = new ImageWorkers(1);
  // A PNG header that promises 50,000 x 50,000 pixels, and nothing behind it.
  const png = Buffer.from('89504e470d0a1a0a0000000d494844520000c3500000c3500802000000', 'hex');
  try {
    await assert.rejects(
      workers.prepare({
        bytes: Buffer.concat([png, Buffer.alloc(64)]),
        limits: { maxBytes: 1 << 20, maxPixels: 1 << 20 },
        tiling: NVLM_TILING,
        detail: 'auto',
      }),
      ImageError,
    );
  } finally {
    await workers.close();
  }
});
