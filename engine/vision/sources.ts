/** Where the bytes of a picture come from. */
import { ImageError } from './errors.ts';
import { type FetchOptions, fetchImage } from './fetch-image.ts';

const isRemote = (url: string): boolean => /^https?:/i.test(url);

/** Bytes of a data URL, or of what an https URL leads to where `fetched` names hosts. Throws ImageError. */
export function readSource(
  url: string,
  maxBytes: number,
  fetched: ImageFetching | undefined,
): Promise<Buffer> | Buffer {
  if (!isRemote(url)) return readDataUrl(url, maxBytes);
  if (fetched === undefined || fetched.allowedHosts.length === 0) {
    throw new ImageError(
      'this server fetches nothing (--image-url-hosts names no host); send a data URL',
    );
  }
  return fetchImage(url, { ...fetched, maxBytes });
}

/** From where pictures may be fetched. */
export type ImageFetching = Pick<FetchOptions, 'allowedHosts' | 'timeoutMs'>;

const header = /^data:[^,]{0,200};base64,/i;

/** Bytes of a base64 data URL. Its media type is not believed: the file says itself what it is. Throws ImageError. */
export function readDataUrl(url: string, maxBytes: number): Buffer {
  const start = header.exec(url)?.[0].length;
  if (start === undefined) {
    const scheme = /^[a-z][a-z0-9+.-]{0,20}:/i.exec(url)?.[0];
    const got = scheme === undefined ? 'no URL' : `a URL of ${scheme}`;
    throw new ImageError(`expected data:image/...;base64,..., got ${got}`);
  }
  const length = Math.floor(((url.length - start) * 3) / 4);
  if (length > maxBytes + 2) {
    throw new ImageError(`the file has about ${length} bytes, at most ${maxBytes} are read`);
  }
  const text = url.slice(start);
  if (!/^[A-Za-z0-9+/\s]*={0,2}\s*$/.test(text)) throw new ImageError('the data is not base64');
  return Buffer.from(text, 'base64');
}
