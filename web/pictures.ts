/** Pictures that go with a question: read from files, kept in the browser's database. */

import type { PictureRef } from './conversation.ts';

export interface Picture extends PictureRef {
  /** data: URL of the file as it was given. */
  readonly url: string;
}

/** Said to the reader as it is. */
export class PictureError extends Error {}

/** A frame of the server's 16 MiB holds it in base64, with its question. */
const MAX_BYTES = 11 * 2 ** 20;

/** Throws PictureError for what the browser cannot show. */
export async function readPicture(file: File, id: string): Promise<Picture> {
  const name = file.name === '' ? 'picture' : file.name;
  if (file.size > MAX_BYTES) throw new PictureError(`${name} is larger than 11 MiB.`);
  const url = await new Promise<string>((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener('load', () => resolve(String(reader.result)));
    reader.addEventListener('error', () => reject(new PictureError(`${name} cannot be read.`)));
    reader.readAsDataURL(file);
  });
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    throw new PictureError(`${name} is no picture that this browser can show.`);
  }
  return { id, name, url, width: image.naturalWidth, height: image.naturalHeight };
}

const STORE = 'pictures';

function request<T>(wanted: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    wanted.addEventListener('success', () => resolve(wanted.result));
    wanted.addEventListener('error', () => reject(wanted.error));
  });
}

/** All pictures in memory, and in IndexedDB where the browser has it: localStorage is too small for them. */
export class PictureStore {
  readonly #urls = new Map<string, string>();
  #database: IDBDatabase | null = null;
  /** Settles when what was kept is here. Never rejects: without a database pictures last as long as the page. */
  readonly loaded = this.#load();

  async #load(): Promise<void> {
    try {
      const opening = indexedDB.open('nvlm', 1);
      opening.addEventListener('upgradeneeded', () => opening.result.createObjectStore(STORE));
      this.#database = await request(opening);
      const pictures = this.#database.transaction(STORE).objectStore(STORE);
      const [keys, urls] = await Promise.all([
        request(pictures.getAllKeys()),
        request(pictures.getAll()),
      ]);
      for (const [i, key] of keys.entries()) this.#urls.set(String(key), String(urls[i]));
    } catch {
      this.#database = null;
    }
  }

  urlOf(id: string): string | undefined {
    return this.#urls.get(id);
  }

  /** False when it will be gone after a reload. */
  async add({ id, url }: Picture): Promise<boolean> {
    this.#urls.set(id, url);
    await this.loaded;
    if (this.#database === null) return false;
    try {
      const write = this.#database.transaction(STORE, 'readwrite');
      await request(write.objectStore(STORE).put(url, id));
      return true;
    } catch {
      return false;
    }
  }

  /** Forgets those that no turn names any more. */
  keepOnly(ids: ReadonlySet<string>): void {
    const gone = [...this.#urls.keys()].filter((id) => !ids.has(id));
    if (gone.length === 0) return;
    const store = this.#database?.transaction(STORE, 'readwrite').objectStore(STORE);
    for (const id of gone) {
      this.#urls.delete(id);
      store?.delete(id);
    }
  }
}
