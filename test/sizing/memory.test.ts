import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { GPUS, gpuOfProduct } from '#sizing/gpus.ts';
import { type MemoryWishes, planMemory } from '#sizing/memory.ts';
import { readModelShape } from '#sizing/model-shape.ts';
import { roofline } from '#sizing/roofline.ts';

const readConfig = (path: string): unknown => JSON.parse(readFileSync(path, 'utf8'));
const nvlm = readModelShape(readConfig('examples/nvlm-d-72b/config.json'));
const GIB = 2 ** 30;
const a100 = (gib: 40 | 80): number => gib * GIB;
const wishes = (changes: Partial<MemoryWishes> = {}): MemoryWishes => ({
  tensor: 8,
  pipeline: 1,
  gpuMemoryBytes: a100(40),
  dtype: 'auto',
  maxSequences: 64,
  maxBatchedTokens: 8192,
  ...changes,
});

test('NVLM-D-72B has the published number of parameters, in its three parts', () => {
  assert.deepEqual(nvlm.parameters, {
    language: 72_706_203_648,
    vision: 6_052_672_640,
    projector: 620_717_056,
    total: 79_379_593_344,
  });
  assert.equal(nvlm.vision?.tokensPerTile, 256);
  assert.equal(nvlm.vision?.maxTiles, 7);
});

test('the parameters of a checkpoint are the elements of its tensors', () => {
  for (const name of ['a', 'b', 'c']) {
    const directory = `test/fixtures/nvlm-tiny/${name}`;
    const { weight_map: shards } = readConfig(`${directory}/model.safetensors.index.json`) as {
      weight_map: Record<string, string>;
    };
    let elements = 0;
    for (const shard of new Set(Object.values(shards))) {
      const file = readFileSync(`${directory}/${shard}`);
      const header = JSON.parse(
        file.subarray(8, 8 + Number(file.readBigUInt64LE())).toString(),
      ) as Record<string, { shape?: number[] }>;
      for (const { shape } of Object.values(header)) {
        if (shape !== undefined) elements += shape.reduce((product, size) => product * size, 1);
      }
    }
    const config = readConfig(`${directory}/config.json`) as Record<string, object>;
    // One stored head more than the config says: only the tensors tell.
    const dummies = { ...config.vision_config, num_dummy_heads: name === 'a' ? 1 : 0 };
    const shape = readModelShape({ ...config, vision_config: dummies });
    assert.equal(shape.parameters.total, elements, name);
  }
});

test('weights of NVLM-D-72B per GPU are those of the arithmetic, and only eight A100-40GB or four A100-80GB hold it', () => {
  const weights = (tensor: number): string =>
    (planMemory(nvlm, wishes({ tensor })).weights / GIB).toFixed(1);
  assert.deepEqual([8, 4, 2].map(weights), ['18.5', '37.0', '73.9']);
  const fits = (tensor: number, gib: 40 | 80): boolean =>
    planMemory(nvlm, wishes({ tensor, gpuMemoryBytes: a100(gib) })).fits;
  assert.deepEqual(
    [fits(8, 40), fits(4, 40), fits(4, 80), fits(2, 80)],
    [true, false, true, false],
  );
  assert.equal(planMemory(nvlm, wishes()).kvBytesPerTokenTotal, 327_680);
});

test('keys and values count by what they are kept in, which follows the weights unless it is named', () => {
  const perHead = (changes: Partial<MemoryWishes>): number =>
    planMemory(nvlm, wishes(changes)).kvBytesPerTokenTotal / (80 * 8);
  assert.equal(perHead({}), 2 * 128 * 2);
  assert.equal(perHead({ dtype: 'float32' }), 2 * 128 * 4);
  // int8 codes with four scales of two bytes for a key and one for a value.
  assert.equal(perHead({ dtype: 'int4' }), 128 + 4 * 2 + 128 + 2);
  assert.equal(perHead({ dtype: 'int4', kvCacheDtype: 'bfloat16' }), 2 * 128 * 2);
  assert.equal(perHead({ kvCacheDtype: 'int8' }), 128 + 4 * 2 + 128 + 2);
});

test('a spec that cannot fit is refused with the number to change, and that number fits', () => {
  const plan = planMemory(nvlm, wishes({ tensor: 4 }));
  assert.equal(plan.fits, false);
  const tensor = Number(/parallelism\.tensor to (\d+)/.exec(plan.refusal)?.[1]);
  assert.equal(planMemory(nvlm, wishes({ tensor })).fits, true);
  const long = planMemory(nvlm, wishes({ tensor: 4, gpuMemoryBytes: 40.5 * GIB + 4 * GIB }));
  assert.equal(long.fits, false);
  const length = Number(/model\.maxModelLength to at most (\d+)/.exec(long.refusal)?.[1]);
  const shorter = wishes({ tensor: 4, gpuMemoryBytes: 44.5 * GIB, maxModelLength: length });
  assert.equal(planMemory(nvlm, shorter).fits, true, long.refusal);
  assert.match(planMemory(nvlm, wishes({ tensor: 3 })).refusal, /tensor 3 does not divide the 64/);
  assert.match(
    planMemory(nvlm, wishes({ maxModelLength: 40_000 })).refusal,
    /more than the 32768 positions/,
  );
});

test('more GPUs, more memory or shorter sequences never turn a fit into a refusal', () => {
  const tensors = [1, 2, 4, 8];
  fc.assert(
    fc.property(
      fc.constantFrom(...tensors),
      fc.integer({ min: 1, max: 8 }),
      fc.integer({ min: 8, max: 200 }),
      fc.integer({ min: 1, max: 32_768 }),
      fc.constantFrom('auto' as const, 'int8' as const, 'int4' as const),
      (tensor, pipeline, gib, maxModelLength, dtype) => {
        const base = wishes({ tensor, pipeline, gpuMemoryBytes: gib * GIB, maxModelLength, dtype });
        const plan = planMemory(nvlm, base);
        const sum = plan.weights + plan.activations + plan.workspace + plan.kvCache;
        assert.ok(sum <= plan.usable || plan.kvCache === 0);
        const better = [
          { ...base, gpuMemoryBytes: base.gpuMemoryBytes + GIB },
          { ...base, tensor: Math.min(8, 2 * tensor) },
          { ...base, maxModelLength: Math.max(1, maxModelLength >> 1) },
        ].map((one) => planMemory(nvlm, one));
        for (const other of better) {
          assert.ok(other.largestBatch >= plan.largestBatch);
          if (plan.fits) assert.ok(other.fits, other.refusal);
        }
      },
    ),
  );
});

test('the roofline of one token is the reading of the weights at the rated bandwidth', () => {
  const plan = planMemory(nvlm, wishes());
  const gpu = GPUS.get('a100-40gb')!;
  const times = roofline(nvlm, plan, gpu, { tensor: 8, pipeline: 1, promptTokens: 1, batch: 1 })!;
  // 71.46e9 weights of layers and head, two bytes each, over eight GPUs of 1,555 GB/s.
  assert.ok(
    Math.abs(times.decodeSeconds - (71.46e9 * 2) / 8 / 1555e9) < 1e-5,
    String(times.decodeSeconds),
  );
  const unknown = { ...gpu, bytesPerSecond: undefined };
  assert.equal(
    roofline(nvlm, plan, unknown, { tensor: 8, pipeline: 1, promptTokens: 1, batch: 1 }),
    undefined,
  );
});

test('the products that nodes are labelled with have their memory', () => {
  const memory = (product: string): number | undefined =>
    gpuOfProduct(product) && gpuOfProduct(product)!.memoryBytes / GIB;
  assert.equal(memory('NVIDIA-A100-SXM4-40GB'), 40);
  assert.equal(memory('NVIDIA-A100-80GB-PCIe'), 80);
  assert.equal(memory('NVIDIA-H200'), 140);
  assert.equal(memory('NVIDIA-GeForce-GTX-1080'), undefined);
});

test('a config without a needed key, or with an impossible one, is refused by the key', () => {
  const refuses = (config: unknown, pattern: RegExp): void => {
    assert.throws(() => readModelShape(config), { code: 'MODEL_CONFIG_INVALID', message: pattern });
  };
  refuses(null, /config is missing/);
  refuses({ model_type: 'gpt2' }, /model_type is 'gpt2'/);
  refuses({ model_type: 'llama', hidden_size: -1, num_attention_heads: 4 }, /config\.hidden_size/);
  refuses({ model_type: 'NVLM_D', llm_config: 3 }, /llm_config/);
});
