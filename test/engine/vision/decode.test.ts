import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { DEFAULT_IMAGE_LIMITS, decodeImage, measureImage } from '#engine/vision/decode.ts';
import { ImageError } from '#engine/vision/errors.ts';
import { readDataUrl } from '#engine/vision/sources.ts';
import { FIXTURES } from '../../support/golden.ts';
import { ONE_FILE_OF_EACH_FORMAT } from '../../support/golden-images.ts';
import { createRandom } from '../../support/random.ts';

interface Picture {
  readonly file: string;
  readonly mode: string;
  readonly width: number;
  readonly height: number;
  readonly sha256: string;
}

const folder = join(FIXTURES, 'pillow');
const { pictures } = JSON.parse(readFileSync(join(folder, 'golden.json'), 'utf8')) as {
  pictures: readonly Picture[];
};
const fileOf = (name: string): Buffer => readFileSync(join(folder, 'files', name));
const decode = (bytes: Uint8Array) => decodeImage(bytes, DEFAULT_IMAGE_LIMITS);
const sha256 = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex');
const isAvif = ({ file }: Picture): boolean => file.endsWith('.avif');

/** Where we do not do as the reference does, docs/pictures.md says so. */
const refused: ReadonlyMap<string, RegExp> = new Map([
  ['zstd.tif', /ZSTD/],
  ['lzma.tif', /LZMA/],
  ['ycbcr.tif', /luma and chroma without JPEG; save it as RGB/],
]);
const other: ReadonlySet<string> = new Set(['white-is-zero-16.tif', 'alpha-premultiplied.avif']);

for (const format of ['png', 'jpg', 'webp', 'gif', 'tif']) {
  test(`${format}: size and pixels of every mode are those of Pillow's convert("RGB"), bit for bit`, async () => {
    const chosen = pictures.filter(({ file }) => file.endsWith(`.${format}`));
    assert.ok(chosen.length >= 8);
    for (const { file, width, height, sha256: expected } of chosen) {
      if (refused.has(file) || other.has(file)) continue;
      const bytes = fileOf(file);
      const image = await decode(bytes);
      assert.deepEqual([image.width, image.height], [width, height], file);
      assert.equal(sha256(image.data), expected, file);
      const measured = await measureImage(bytes, DEFAULT_IMAGE_LIMITS);
      assert.deepEqual([measured.width, measured.height], [width, height], file);
    }
  });
}

/** Most levels of difference and their root mean square: chroma is interpolated by the reference's decoder and repeated by ours. */
const avifTolerance: Readonly<Record<string, readonly [number, number]>> = {
  '422.avif': [81, 11.5],
  '420.avif': [100, 15.3],
  '420-smooth.avif': [6, 2],
  'limited-range.avif': [3, 0.91],
};

test("avif: pixels are Pillow's within one level, and within the stated levels where chroma is coarser or the range limited", async () => {
  const golden = readFileSync(join(folder, 'golden.bin'));
  let at = 0;
  for (const { file, width, height } of pictures.filter(isAvif)) {
    const expected = golden.subarray(at, at + width * height * 3);
    at += expected.length;
    if (other.has(file)) continue;
    const bytes = fileOf(file);
    const image = await decode(bytes);
    assert.deepEqual([image.width, image.height], [width, height], file);
    const measured = await measureImage(bytes, DEFAULT_IMAGE_LIMITS);
    assert.deepEqual([measured.width, measured.height], [width, height], file);
    const differences = expected.map((value, i) => Math.abs(value - image.data[i]!));
    const rms = Math.sqrt(differences.reduce((sum, one) => sum + one * one, 0) / expected.length);
    const [most, mostRms] = avifTolerance[file] ?? [1, 0.56];
    assert.ok(Math.max(...differences) <= most, `${file}: ${Math.max(...differences)} levels`);
    assert.ok(rms <= mostRms, `${file}: ${rms} levels in the root mean square`);
  }
  assert.equal(at, golden.length);
});

test('what cannot be decoded is refused with the reason', async () => {
  for (const [file, reason] of refused) {
    await assert.rejects(decode(fileOf(file)), (error) => {
      assert.ok(error instanceof ImageError);
      assert.match(error.message, reason);
      return true;
    });
  }
});

test('16-bit grey TIFF whose zero is white is shown the right way round, where the reference shows its negative', async () => {
  const { data } = await decode(fileOf('white-is-zero-16.tif'));
  assert.deepEqual([data[0], data[3], data[9]], [255, 0, 255]);
});

/** One file for each way of storing pixels. */
const whole = [
  'rgb-8.png',
  'rgb-8-interlaced.png',
  'animated.png',
  '420.jpg',
  '420-progressive.jpg',
  'cmyk-adobe.jpg',
  'lossless.webp',
  'lossy.webp',
  'animated.webp',
  'compressed.gif',
  'animated.gif',
  '444.avif',
  'animated.avif',
  'lzw.tif',
  'jpeg.tif',
  'one-bit-group4.tif',
];

for (const name of whole) {
  test(`${name}, cut off anywhere before its pixels end, is refused`, async () => {
    const bytes = fileOf(name);
    // The first frame of an animation ends early.
    const shares = name.startsWith('animated') ? [0.01, 0.05, 0.15] : [0.01, 0.05, 0.25, 0.5, 0.8];
    for (const share of shares) {
      const cut = bytes.subarray(0, Math.floor(bytes.length * share));
      await assert.rejects(decode(cut), ImageError, `${share} of ${name}`);
    }
  });

  test(`${name} with wrong bytes is a picture of any content or is refused, and nothing else`, async () => {
    const random = createRandom(7);
    const bytes = fileOf(name);
    for (let round = 0; round < 40; round++) {
      const broken = Buffer.from(bytes);
      for (let change = 0; change <= round % 4; change++) {
        broken[random.integer(0, broken.length - 1)] = random.integer(0, 255);
      }
      try {
        const { width, height, data } = await decodeImage(broken, {
          maxBytes: 1 << 20,
          maxPixels: 1 << 20,
        });
        assert.equal(data.length, width * height * 3);
      } catch (error) {
        assert.ok(error instanceof ImageError, `${name}, round ${round}: ${error}`);
      }
    }
  });
}

test('an empty file is refused as such, whatever it is said to be', async () => {
  await assert.rejects(decode(Buffer.alloc(0)), /the file is empty/);
});

test('a file is read as what it is, whatever its data URL calls it', async () => {
  for (const name of ONE_FILE_OF_EACH_FORMAT) {
    const bytes = fileOf(name);
    const expected = sha256((await decode(bytes)).data);
    for (const type of ['image/png', 'image/jpeg', 'image/gif', 'text/plain']) {
      const url = `data:${type};base64,${bytes.toString('base64')}`;
      const { data } = await decode(readDataUrl(url, 1 << 20));
      assert.equal(sha256(data), expected, `${name} as ${type}`);
    }
  }
});

test('a header that promises more pixels than the limit is refused before anything is decoded', async () => {
  const wide = Buffer.from(fileOf('compressed.gif'));
  wide.writeUInt16LE(60_000, 6);
  wide.writeUInt16LE(60_000, 8);
  await assert.rejects(decode(wide), /60000 x 60000 pixels, at most 67108864 are decoded/);
});
