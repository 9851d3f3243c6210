/** POSIX ustar archives with nothing of the machine in them: sorted names, one time, numeric owners; long names by pax headers. */

const blockSize = 512;

/**
 * @typedef {object} Entry
 * @property {string} path Relative, without a leading slash.
 * @property {'file' | 'directory' | 'link'} type
 * @property {number} mode
 * @property {Buffer} [data] Of a file.
 * @property {string} [target] Of a symbolic link.
 * @property {number} [owner] User and group, 0 when absent.
 */

const octal = (value, length) => `${value.toString(8).padStart(length - 1, '0')}\0`;

function header({ name, prefix = '', mode, owner = 0, size, time, flag, target = '' }) {
  const block = Buffer.alloc(blockSize);
  block.write(name, 0, 100);
  block.write(octal(mode, 8), 100);
  block.write(octal(owner, 8), 108);
  block.write(octal(owner, 8), 116);
  block.write(octal(size, 12), 124);
  block.write(octal(time, 12), 136);
  block.write('        ', 148);
  block.write(flag, 156);
  block.write(target, 157, 100);
  block.write('ustar\x0000', 257);
  block.write(prefix, 345, 155);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return block;
}

/** The name in the two fields of ustar, or undefined when it does not fit. */
function split(path) {
  if (Buffer.byteLength(path) <= 100) return { name: path };
  for (let cut = path.indexOf('/'); cut !== -1; cut = path.indexOf('/', cut + 1)) {
    const parts = { prefix: path.slice(0, cut), name: path.slice(cut + 1) };
    if (Buffer.byteLength(parts.prefix) > 155) break;
    if (Buffer.byteLength(parts.name) <= 100) return parts;
  }
  return undefined;
}

const padded = (data) => [data, Buffer.alloc((blockSize - (data.length % blockSize)) % blockSize)];

/** One pax record: its length counts itself. */
function record(key, value) {
  const rest = Buffer.byteLength(` ${key}=${value}\n`);
  let length = rest;
  while (String(length).length + rest !== length) length = String(length).length + rest;
  return `${length} ${key}=${value}\n`;
}

/**
 * @param {readonly Entry[]} entries In any order; parents need not be named.
 * @param {number} time Seconds since 1970 of every entry.
 * @returns {Buffer}
 */
export function createTar(entries, time = 0) {
  const all = new Map();
  for (const entry of entries) {
    const parts = entry.path.split('/');
    for (let depth = 1; depth < parts.length; depth++) {
      const path = parts.slice(0, depth).join('/');
      if (!all.has(path)) all.set(path, { path, type: 'directory', mode: 0o755 });
    }
    all.set(entry.path, entry);
  }
  const blocks = [];
  const sorted = [...all.values()].sort((a, b) =>
    Buffer.compare(Buffer.from(a.path), Buffer.from(b.path)),
  );
  for (const { path, type, mode, data = Buffer.alloc(0), target = '', owner } of sorted) {
    const full = type === 'directory' ? `${path}/` : path;
    const parts = split(full);
    const records =
      (parts === undefined ? record('path', full) : '') +
      (Buffer.byteLength(target) > 100 ? record('linkpath', target) : '');
    if (records !== '') {
      const text = Buffer.from(records);
      blocks.push(header({ name: 'pax', mode: 0o644, size: text.length, time, flag: 'x' }));
      blocks.push(...padded(text));
    }
    const flag = { file: '0', link: '2', directory: '5' }[type];
    const { name, prefix } = parts ?? { name: full.slice(0, 100) };
    blocks.push(header({ name, prefix, mode, owner, size: data.length, time, flag, target }));
    if (data.length > 0) blocks.push(...padded(data));
  }
  blocks.push(Buffer.alloc(2 * blockSize));
  return Buffer.concat(blocks);
}
