/** What goes into the images: a base of Node and its libraries, the packages, our sources. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { node, root } from '../scripts/build.mjs';
import { describeLibrary, librariesOf } from './libraries.mjs';
import { filesOfPackage, importedPackages, productionPackages } from './packages.mjs';

/** The user of the charts' securityContext; a number, so that a kubelet can check runAsNonRoot. */
export const USER = 65532;

export const IMAGES = {
  engine: {
    description: 'Inference engine of NVLM on Kubernetes: tokens over WebSocket',
    folders: ['engine', 'kernels', 'options', 'sizing', 'web'],
    files: [
      'kernels/build/nvlm.node',
      'models/nano/smollm2/config.json',
      'models/nano/smollm2/model.safetensors',
      'scripts/progress.mjs',
      'package.json',
      'LICENSE',
    ],
    // The chat page gets their files; no source imports them.
    packages: ['marked', 'dompurify'],
    entrypoint: ['node', 'engine/main.ts'],
    port: 8000,
  },
  operator: {
    description: 'Operator of NVLM on Kubernetes: deploys, rolls out, drains and scales engines',
    folders: ['operator', 'crds', 'charts', 'options', 'sizing'],
    files: ['package.json', 'LICENSE'],
    packages: [],
    entrypoint: ['node', 'operator/main.ts'],
    port: 8080,
  },
};

const runtimeSource = /\.(ts|mjs|js|json|html|css|svg|png|ico|woff2|webmanifest|jinja)$/;

/** Helm's templates, and the demonstration, which needs packages of development. */
const omitted = ['charts/nvlm-operator', 'engine/demo'];

/** Files that run: no C++ sources, no build folders but the compiled page. */
function sourceFiles(folder) {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) {
      return /^(build.*|node_modules|src)$/.test(entry.name) || omitted.includes(path)
        ? []
        : sourceFiles(path);
    }
    return entry.isFile() && runtimeSource.test(entry.name) && !entry.name.startsWith('.')
      ? [path]
      : [];
  });
}

const fromFile = (path, source) => ({
  path,
  type: 'file',
  mode: statSync(source).mode & 0o100 ? 0o755 : 0o644,
  data: readFileSync(source),
});
const text = (path, data) => ({ path, type: 'file', mode: 0o644, data: Buffer.from(data) });

function baseEntries(libraries) {
  return [
    fromFile('usr/local/bin/node', node),
    ...libraries.map((path) => ({ ...fromFile(path.slice(1), path), mode: 0o755 })),
    text(
      'etc/passwd',
      `root:x:0:0:root:/root:/usr/sbin/nologin\nnvlm:x:${USER}:${USER}:nvlm:/home/nvlm:/usr/sbin/nologin\n`,
    ),
    text('etc/group', `root:x:0:\nnvlm:x:${USER}:\n`),
    text('etc/nsswitch.conf', 'passwd: files\ngroup: files\nhosts: files dns\n'),
    { path: 'tmp', type: 'directory', mode: 0o1777 },
    { path: 'home/nvlm', type: 'directory', mode: 0o750, owner: USER },
    // Where the charts mount the model cache; without a mount the engine may still write here.
    { path: 'models', type: 'directory', mode: 0o755, owner: USER },
  ];
}

/** Layers and materials of an image; what changes seldom is lowest. */
export function imageContents(name) {
  const { folders, files, packages: more } = IMAGES[name];
  const sources = [...folders.flatMap(sourceFiles), ...files];
  // The page's modules are the browser's; they show examples of other programs.
  const imported = importedPackages(
    root,
    sources.filter((path) => !path.startsWith('web/')),
  );
  const packages = productionPackages(root, [...new Set([...imported, ...more])]);
  const packageFiles = packages.flatMap(({ path }) => filesOfPackage(root, path));
  const native = [...packageFiles, ...files]
    .filter((path) => /\.node$|\.so(\.\d+)*$/.test(path))
    .map((path) => join(root, path));
  const libraries = librariesOf([node, ...native], root);
  const app = (paths) => paths.map((path) => fromFile(`app/${path}`, join(root, path)));
  return {
    packages,
    libraries: libraries.map(describeLibrary),
    layers: [
      { description: 'Node.js, the C and C++ libraries, users', entries: baseEntries(libraries) },
      { description: 'npm packages', entries: app(packageFiles) },
      { description: `nvlm ${name}`, entries: app(sources) },
    ],
  };
}
