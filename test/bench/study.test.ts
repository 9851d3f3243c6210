import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { runTogether } from '#bench/generate.ts';
import { barChart, markdownTable } from '#bench/report.ts';
import { type MeasuredWorkload, studyCharts, studyTables } from '#bench/study-report.ts';
import {
  pictureWorkload,
  readStudy,
  STUDY_PICTURES,
  textWorkload,
  type WorkloadName,
} from '#bench/study-workload.ts';
import type { LoadedModel } from '#engine/start.ts';
import { DEFAULT_IMAGE_LIMITS, decodeImage } from '#engine/vision/decode.ts';
import { chooseGrid, NVLM_TILING, tileCount } from '#engine/vision/tiling.ts';
import { loadTiny } from '../support/vision-server.ts';

const pictureFile = (name: string): URL =>
  new URL(`../../bench/workloads/pictures/${name}.png`, import.meta.url);

/** One round of `seconds` in each mode, in the order of the study's methods. */
function measured(
  name: WorkloadName,
  seconds: readonly [number, number, number, number],
  count: number,
): MeasuredWorkload {
  const run = (value: number) => ({
    seconds: value,
    timeToFirstTokenMs: 10 * value,
    timePerOutputTokenMs: value,
    tokenIds: [],
  });
  const [one, two, three, four] = seconds;
  return {
    name,
    count,
    newTokens: 10,
    runs: {
      Sequential: [run(one)],
      Static: [run(two)],
      Threads: [run(three)],
      Continuous: [run(four)],
    },
    joules: { Sequential: [], Static: [], Threads: [], Continuous: [] },
  };
}

describe("the study's table", () => {
  const pictures = measured('TEXT + IMAGE', [12, 8, 6, 3], 6);
  const text = measured('TEXT ONLY', [8, 4, 4, 2], 4);
  const options = { rounds: 1, model: 'a model' };

  it('has both workloads beside the seconds that the study reported, and our figure in its empty cell', () => {
    const [table] = studyTables(readStudy(), [pictures, text], [], options);
    assert.deepEqual(table?.rows, [
      ['Sequential', 'Benchmark', '12', '35.9', '1x', '1x', '8', '188', '1x', '1x'],
      [
        'Static',
        'Dataloader Handle Batch input',
        ...['8', '23.7', '1.5x', '1.52x'],
        ...['4', '56.8', '2x', '3.31x'],
      ],
      [
        'Threads',
        'Thread-based concurrency',
        ...['6', '47.2', '2x', '0.762x'],
        ...['4', '177', '2x', '1.06x'],
      ],
      ['Continuous', 'vLLM', '3', '—', '4x', '—', '2', '5.05', '4x', '37.2x'],
    ]);
    assert.ok(table?.rows.every((row) => row.length === table.columns.length));
  });

  it('leaves the pictures of a model that reads text only empty, and says so', () => {
    const tables = studyTables(readStudy(), [text], [], options);
    assert.equal(tables.length, 2);
    assert.deepEqual(tables[0]?.rows[3]?.slice(2, 6), ['—', '—', '—', '—']);
    assert.deepEqual(tables[0]?.rows[0]?.slice(2, 6), ['—', '35.9', '—', '1x']);
    assert.match(tables[0]?.note ?? '', /reads text only/);
  });

  it('tells tokens per second of each workload by its own number of tokens', () => {
    const [, ofPictures, ofText] = studyTables(readStudy(), [pictures, text], [], options);
    assert.deepEqual(ofPictures?.rows[3]?.slice(0, 5), ['Continuous', '3', '20', '30', '3']);
    assert.deepEqual(ofText?.rows[3]?.slice(0, 5), ['Continuous', '2', '20', '20', '2']);
    assert.match(markdownTable(ofPictures!), /6 questions with a picture each, 10 new tokens/);
  });

  it('compares peers over the text questions', () => {
    const peers = [{ name: 'peer', sequential: [16], together: [3] }];
    const table = studyTables(readStudy(), [pictures, text], peers, options).at(-1);
    assert.deepEqual(table?.rows, [
      ['peer, one by one', '16', '2.5', '2x'],
      ['peer, together', '3', '13.3', '1.5x'],
    ]);
  });

  it("is drawn with the study's speed-ups beside ours, and what nobody measured is marked", () => {
    const [tokens, speedUps] = studyCharts(readStudy(), [pictures, text], []);
    assert.ok(tokens?.kind === 'bar' && speedUps?.kind === 'bar');
    assert.deepEqual(
      speedUps.series.map(({ name, values }) => [name, Number(values[3]?.toFixed(1))]),
      [
        ['TEXT + IMAGE, here', 4],
        ['TEXT + IMAGE, study', Number.NaN],
        ['TEXT ONLY, here', 4],
        ['TEXT ONLY, study', 37.2],
      ],
    );
    assert.equal(barChart(speedUps).match(/not measured/g)?.length, 1);
    assert.deepEqual(tokens.series[0]?.values, [5, 7.5, 10, 20]);
  });
});

describe("the study's pictures", () => {
  it('are six small files, one for each question, of a tile to seven', async () => {
    assert.equal(readStudy().image_and_text.length, STUDY_PICTURES.length);
    const tiles = [];
    for (const name of STUDY_PICTURES) {
      assert.ok(statSync(pictureFile(name)).size < 40_000, name);
      const image = await decodeImage(readFileSync(pictureFile(name)), DEFAULT_IMAGE_LIMITS);
      tiles.push(tileCount(chooseGrid(image.width, image.height, NVLM_TILING), NVLM_TILING));
      const colours = new Set<number>();
      for (let i = 0; i < image.data.length; i += 3)
        colours.add((image.data[i]! << 16) | (image.data[i + 1]! << 8) | image.data[i + 2]!);
      assert.ok(colours.size > 40, `${name} is blank`);
    }
    assert.deepEqual(tiles, [7, 4, 3, 7, 7, 3]);
  });
});

describe("the study's questions to a model that sees", { timeout: 300_000 }, () => {
  let model: LoadedModel;
  before(async () => {
    model = await loadTiny('a', { dtype: 'auto' });
  });
  after(() => model?.close());

  it('carry their picture in the place of <image>, a fresh one for every run', async () => {
    const workload = pictureWorkload(model, 3)!;
    const first = await workload.request(1, 'one');
    const second = await workload.request(1, 'two');
    const [image] = first.images!;
    assert.equal(image?.positions.length, 4 * 256);
    assert.ok(image?.positions.every((at) => first.promptIds[at] === model.images?.contextTokenId));
    assert.deepEqual(second.promptIds, first.promptIds);
    assert.notEqual(second.images![0]!.digest, image?.digest);
    assert.deepEqual(second.images![0]!.embeddings, image?.embeddings);
    const prompt = model.tokenizer.decode([...first.promptIds]);
    assert.match(prompt, /user\n<Image>.*<\/Image>\nWhat is the difference between the left/s);
  });

  it('are answered, and so are those of text', async () => {
    for (const workload of [pictureWorkload(model, 3)!, textWorkload(model, 3)]) {
      const { count } = workload;
      const engine = model.startEngine({ mode: 'Continuous', maxSequences: count, workers: 2 });
      const { tokenIds, timeToFirstTokenMs, seconds } = await runTogether(
        engine,
        Array.from({ length: count }, (_, i) => () => workload.request(i, `${i}`)),
      );
      await engine.drain(0);
      assert.deepEqual(
        tokenIds.map(({ length }) => length),
        Array.from({ length: count }, () => 3),
      );
      assert.ok(timeToFirstTokenMs > 0 && timeToFirstTokenMs < seconds * 1000);
    }
  });
});
