/** The OCI image layout: blobs by digest, one index; the bill of materials refers to the image as its subject. */
import { createHash } from 'node:crypto';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { createTar } from './tar.mjs';

const compress = promisify(gzip);
const sha256 = (data) => `sha256:${createHash('sha256').update(data).digest('hex')}`;
const manifestType = 'application/vnd.oci.image.manifest.v1+json';
const layerType = 'application/vnd.oci.image.layer.v1.tar';
const billType = 'application/vnd.cyclonedx+json';

/**
 * Makes the image in memory.
 *
 * @param {object} image
 * @param {{ description: string, entries: import('./tar.mjs').Entry[] }[]} image.layers
 * @param {object} image.config User, Env, Entrypoint ... as OCI names them.
 * @param {string} image.reference Full name and tag.
 * @param {string} image.bill
 * @param {number} image.time Seconds since 1970.
 * @param {'gzip' | 'none'} [image.compression] Of the layers.
 * @param {(fraction: number) => void} [image.onProgress]
 * @returns {Promise<{ digest: string, files: { path: string, data: Buffer }[] }>}
 */
export async function createImage({
  layers,
  config,
  reference,
  bill,
  time,
  compression = 'gzip',
  onProgress,
}) {
  const blobs = new Map();
  const put = (mediaType, data) => {
    const digest = sha256(data);
    blobs.set(digest, data);
    return { mediaType, digest, size: data.length };
  };
  const json = (mediaType, value) => put(mediaType, Buffer.from(JSON.stringify(value)));
  const created = new Date(time * 1000).toISOString().replace('.000Z', 'Z');
  const descriptors = [];
  const diffIds = [];
  for (const [index, { entries }] of layers.entries()) {
    const tar = createTar(entries, time);
    diffIds.push(sha256(tar));
    descriptors.push(
      compression === 'none'
        ? put(layerType, tar)
        : put(`${layerType}+gzip`, await compress(tar, { level: 6 })),
    );
    onProgress?.((index + 1) / layers.length);
  }
  const platform = { architecture: process.arch === 'x64' ? 'amd64' : process.arch, os: 'linux' };
  const configuration = json('application/vnd.oci.image.config.v1+json', {
    created,
    ...platform,
    config,
    rootfs: { type: 'layers', diff_ids: diffIds },
    history: layers.map(({ description }) => ({ created, created_by: description })),
  });
  const manifest = json(manifestType, {
    schemaVersion: 2,
    mediaType: manifestType,
    config: configuration,
    layers: descriptors,
    annotations: config.Labels,
  });
  const empty = put('application/vnd.oci.empty.v1+json', Buffer.from('{}'));
  const attached = json(manifestType, {
    schemaVersion: 2,
    mediaType: manifestType,
    artifactType: billType,
    config: empty,
    layers: [put(billType, Buffer.from(bill))],
    subject: manifest,
    annotations: { 'org.opencontainers.image.created': created },
  });
  const index = {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.index.v1+json',
    manifests: [
      {
        ...manifest,
        platform,
        annotations: {
          'io.containerd.image.name': reference,
          'org.opencontainers.image.ref.name': reference.slice(reference.lastIndexOf(':') + 1),
        },
      },
      { ...attached, artifactType: billType },
    ],
  };
  const files = [
    { path: 'oci-layout', data: Buffer.from('{"imageLayoutVersion":"1.0.0"}') },
    { path: 'index.json', data: Buffer.from(JSON.stringify(index)) },
    ...[...blobs].map(([digest, data]) => ({ path: `blobs/${digest.replace(':', '/')}`, data })),
  ];
  return { digest: manifest.digest, files };
}

/** Writes the layout as a folder, for skopeo, crane and oras. */
export function writeLayout(folder, files) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(join(folder, 'blobs/sha256'), { recursive: true });
  for (const { path, data } of files) writeFileSync(join(folder, path), data);
}

/** The layout as one archive, for `ctr images import` and `podman load`. */
export const layoutArchive = (files) =>
  createTar(files.map(({ path, data }) => ({ path, type: 'file', mode: 0o644, data })));
