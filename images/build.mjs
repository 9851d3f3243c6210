/**
 * `npm run images [-- engine operator --output DIR --tag TAG]`: the container images from this checkout and this machine's C library.
 * Nothing is pulled, no daemon and no root are needed; the same checkout gives the same digest.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { build, node, root } from '../scripts/build.mjs';
import { run } from '../scripts/command.mjs';
import { startStep } from '../scripts/progress.mjs';
import { IMAGES, imageContents, USER } from './contents.mjs';
import { createImage, layoutArchive, writeLayout } from './layout.mjs';
import { billOfMaterials } from './sbom.mjs';

const usage = `npm run images [-- NAME ... --output DIR --tag TAG --repository PREFIX --compression none]

  NAME          engine, operator; both when none is named
  --output      folder for the images (dist/images)
  --tag         tag (the version in package.json)
  --repository  what the names begin with (docker.io/library: what a node makes of a short name)
  --compression gzip, none: of the layers (gzip); without it images are made in a tenth of the time
  SOURCE_DATE_EPOCH in the environment is the time of every file (0)`;

function readArguments() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      output: { type: 'string', default: join(root, 'dist/images') },
      tag: { type: 'string' },
      repository: { type: 'string', default: 'docker.io/library' },
      compression: { type: 'string', default: 'gzip' },
      help: { type: 'boolean', default: false },
    },
  });
  for (const name of positionals) {
    if (!Object.hasOwn(IMAGES, name)) throw new Error(`Unknown image ${name}.\n${usage}`);
  }
  if (!['gzip', 'none'].includes(values.compression))
    throw new Error(`--compression: expected gzip or none, got ${values.compression}.`);
  return { ...values, names: positionals.length > 0 ? positionals : Object.keys(IMAGES) };
}

async function buildOne(
  name,
  { output, tag, repository, compression, version, nodeVersion, time },
) {
  const step = startStep(`Build image nvlm-${name}`);
  try {
    const { description, entrypoint, port } = IMAGES[name];
    const { layers, packages, libraries } = imageContents(name);
    const bill = billOfMaterials({
      name: `nvlm-${name}`,
      version,
      nodeVersion,
      packages,
      libraries,
    });
    const reference = `${repository}/nvlm-${name}:${tag}`;
    const { digest, files } = await createImage({
      layers,
      reference,
      bill,
      time,
      compression,
      onProgress: (fraction) => step.update(fraction),
      config: {
        User: `${USER}:${USER}`,
        Env: [
          'PATH=/usr/local/bin',
          'NODE_ENV=production',
          'HOME=/home/nvlm',
          'XDG_CACHE_HOME=/models',
        ],
        Entrypoint: entrypoint,
        WorkingDir: '/app',
        ExposedPorts: { [`${port}/tcp`]: {} },
        StopSignal: 'SIGTERM',
        Labels: {
          'org.opencontainers.image.title': `nvlm-${name}`,
          'org.opencontainers.image.description': description,
          'org.opencontainers.image.version': version,
          'org.opencontainers.image.licenses': 'Apache-2.0',
        },
      },
    });
    const archive = layoutArchive(files);
    writeLayout(join(output, name), files);
    writeFileSync(join(output, `nvlm-${name}.tar`), archive);
    writeFileSync(join(output, `nvlm-${name}.cdx.json`), bill);
    step.done(`${(archive.length / 1e6).toFixed(0)} MB, ${packages.length} packages`);
    return { name, reference, digest };
  } catch (error) {
    step.fail('failed');
    throw error;
  }
}

try {
  const options = readArguments();
  if (options.help) {
    console.log(usage);
  } else {
    await build();
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
    const output = resolve(options.output);
    mkdirSync(output, { recursive: true });
    const nodeVersion = (await run(node, ['--version'])).trim().replace(/^v/, '');
    const time = Number(process.env.SOURCE_DATE_EPOCH ?? 0);
    if (!Number.isSafeInteger(time) || time < 0)
      throw new Error('SOURCE_DATE_EPOCH is seconds since 1970, a whole number.');
    for (const name of options.names) {
      const made = await buildOne(name, {
        ...options,
        output,
        tag: options.tag ?? version,
        version,
        nodeVersion,
        time,
      });
      console.log(`${made.reference} ${made.digest}`);
    }
  }
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
