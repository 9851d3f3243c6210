import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { RunningServer } from '#engine/server/app.ts';
import type { LoadedModel } from '#engine/start.ts';
import { FIXTURES } from '../support/golden.ts';
import { ONE_FILE_OF_EACH_FORMAT } from '../support/golden-images.ts';
import { dataUrl, fileOf, loadTiny, serveTiny } from '../support/vision-server.ts';

describe('limits of pictures', { timeout: 120_000 }, () => {
  let model: LoadedModel;
  let server: RunningServer;
  let url: string;
  before(async () => {
    model = await loadTiny('a', {
      // i448 has 448 x 448 pixels in one tile, i640x480 six and a thumbnail.
      imageLimits: { maxBytes: 45_000, maxPixels: 400_000, maxImages: 3, maxTiles: 9 },
    });
    ({ server, url } = await serveTiny(model));
  });
  after(async () => {
    await server?.close(1000);
    await model?.close();
  });

  const send = (...pictures: readonly { name: string; detail?: string }[]) =>
    sendFiles(pictures.map(({ name, detail }) => ({ file: fileOf(name), detail })));

  async function sendFiles(pictures: readonly { file: Buffer; detail?: string | undefined }[]) {
    const content = pictures.map(({ file, detail = 'auto' }) => ({
      type: 'image_url',
      image_url: { url: dataUrl(file), detail },
    }));
    const response = await fetch(`${url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ messages: [{ role: 'user', content }], max_tokens: 1 }),
    });
    const { error } = (await response.json()) as { error?: { message: string; param: string } };
    return { status: response.status, ...error };
  }
  const small = { name: 'i448' };
  const large = { name: 'i640x480' };

  test('what is within all of them is read', async () => {
    assert.equal((await send(small, large, small)).status, 200);
  });

  for (const [what, pictures, picture, told] of [
    [
      'too many pictures',
      [small, small, small, small],
      3,
      /^.*: picture 4 of 4: at most 3 pictures/,
    ],
    [
      'too many bytes',
      [small, { name: 'i633' }],
      1,
      /picture 2 of 2: .*bytes, at most 45000 are read/,
    ],
    [
      'too many pixels',
      [small, { name: 'i634' }],
      1,
      /picture 2 of 2: it has 634 x 634 pixels, at most 400000 are decoded/,
    ],
    [
      'too many tiles together',
      [large, small, large],
      2,
      /picture 3 of 3: it has 7 tiles, with those before it 15; at most 9 .* detail low/,
    ],
  ] as const) {
    test(`${what} is a 400 that names the picture and the limit`, async () => {
      const { status, message, param } = await send(...pictures);
      assert.equal(status, 400, message);
      assert.match(message ?? '', told);
      assert.equal(param, `messages[0].content[${picture}].image_url`);
    });
  }

  for (const name of ONE_FILE_OF_EACH_FORMAT) {
    test(`${name}: whole it is read, empty or half it is a 400 that names the picture and the reason`, async () => {
      const file = readFileSync(join(FIXTURES, 'pillow/files', name));
      const good = { file, detail: 'low' };
      assert.equal((await sendFiles([good])).status, 200);
      for (const [bad, told] of [
        [file.subarray(0, 0), /picture 2 of 3: the file is empty/],
        [file.subarray(0, file.length / 2), /picture 2 of 3: .*(decoded|ends in the middle)/],
      ] as const) {
        const { status, message, param } = await sendFiles([
          good,
          { file: bad, detail: 'low' },
          good,
        ]);
        assert.equal(status, 400, message);
        assert.match(message ?? '', told);
        assert.equal(param, 'messages[0].content[1].image_url');
      }
    });
  }

  test('tiles count as the detail asks for them, and also for pictures that were read before', async () => {
    const low = { ...large, detail: 'low' };
    assert.equal((await send(large, low, low)).status, 200);
    assert.equal((await send(large, large)).status, 400);
  });
});
