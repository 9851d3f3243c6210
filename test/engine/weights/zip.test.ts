import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { CheckpointError } from '#engine/weights/errors.ts';
import { extractZipEntry, readZipEntries } from '#engine/weights/zip.ts';
import { refusesWith } from '../../support/checkpoint-error.ts';
import { temporaryDirectory, writeBytes } from '../../support/checkpoint-files.ts';
import { type ZipMember, zipBytes } from '../../support/zip-files.ts';

const content = Buffer.from('weights '.repeat(20_000));

for (const method of [0, 8]) {
  for (const isZip64 of [false, true]) {
    test(`a member of method ${method}${isZip64 ? ' with ZIP64 fields' : ''} comes out as it went in`, async (t) => {
      const directory = temporaryDirectory(t);
      const archive = zipBytes([
        { name: 'first.txt', content: Buffer.from('first') },
        { name: 'pack/model.gguf', content, method, isZip64 },
        { name: 'empty', content: Buffer.alloc(0), method },
      ]);
      const path = writeBytes(directory, 'a.whl', archive);
      const entries = readZipEntries(path);
      assert.deepEqual(
        entries.map(({ name, size }) => [name, size]),
        [
          ['first.txt', 5],
          ['pack/model.gguf', content.length],
          ['empty', 0],
        ],
      );
      let last = 0;
      for (const entry of entries) {
        await extractZipEntry(path, entry, join(directory, 'out'), {
          onBytes: (written) => {
            last = written;
          },
        });
        const out = readFileSync(join(directory, 'out'));
        if (entry.name === 'pack/model.gguf') {
          assert.deepEqual(out, content);
          assert.equal(last, content.length);
        }
        assert.equal(out.length, entry.size);
      }
    });
  }
}

const damaged: readonly [string, Partial<ZipMember>, string][] = [
  ['another CRC', { crc: 1 }, 'CRC-32'],
  ['more bytes than announced', { size: content.length - 1 }, 'more'],
  ['fewer bytes than announced', { size: content.length + 1 }, `${content.length}`],
];
for (const [what, changes, mention] of damaged) {
  test(`a member with ${what} is refused`, async (t) => {
    const directory = temporaryDirectory(t);
    const archive = zipBytes([{ name: 'm.gguf', content, method: 8, ...changes }]);
    const path = writeBytes(directory, 'a.whl', archive);
    const [entry] = readZipEntries(path);
    await refusesWith('DOWNLOAD_CORRUPT', ['m.gguf', mention], () =>
      extractZipEntry(path, entry!, join(directory, 'out'), { onBytes: () => undefined }),
    );
  });
}

test('encrypted archives, other methods and files that are no archives are refused', async (t) => {
  const directory = temporaryDirectory(t);
  const write = (bytes: Buffer) => writeBytes(directory, 'a.whl', bytes);
  const encrypted = write(zipBytes([{ name: 'm', content, flags: 1 }]));
  await refusesWith('CHECKPOINT_HEADER_INVALID', ['encrypted'], () => readZipEntries(encrypted));
  const strange = write(zipBytes([{ name: 'm', content, method: 12 }]));
  const [entry] = readZipEntries(strange);
  await refusesWith('CHECKPOINT_HEADER_INVALID', ['method 12'], () =>
    extractZipEntry(strange, entry!, join(directory, 'out'), { onBytes: () => undefined }),
  );
  const none = write(Buffer.alloc(100));
  await refusesWith('CHECKPOINT_HEADER_INVALID', ['not a ZIP'], () => readZipEntries(none));
});

test('no damage to an archive does anything but extract within its sizes or be refused', async (t) => {
  const directory = temporaryDirectory(t);
  const small = Buffer.from('tiny content');
  const sound = zipBytes([
    { name: 'a', content: small, method: 8 },
    { name: 'b', content: small, isZip64: true },
  ]);
  const path = join(directory, 'a.whl');
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(sound.length - 1), fc.nat(255)), { minLength: 1, maxLength: 3 }),
      async (changes) => {
        const bytes = Buffer.from(sound);
        for (const [at, value] of changes) bytes[at] = value;
        writeFileSync(path, bytes);
        try {
          for (const entry of readZipEntries(path)) {
            const target = join(directory, 'out');
            await extractZipEntry(path, entry, target, { onBytes: () => undefined });
            assert.equal(readFileSync(target).length, entry.size);
          }
        } catch (error) {
          if (!(error instanceof CheckpointError)) throw error;
        }
      },
    ),
    { numRuns: 500 },
  );
});
